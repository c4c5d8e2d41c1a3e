//! Secrets: who is given which, and what another value means.

use super::*;
use crate::secret::{
    AwsSecret, SealedSecret, SealedSecrets, SecretSource, SecretUse, SecretVersions,
};
use crate::stage::key_with_secrets;

fn sealed(versions: &[(&str, &str)]) -> SealedSecrets {
    let sealed = |(name, version): &(&str, &str)| {
        let secret = SealedSecret {
            version: (*version).to_owned(),
            sealed: format!("sealed {name}"),
        };
        ((*name).to_owned(), secret)
    };
    versions.iter().map(sealed).collect()
}

fn given(names: &[&str]) -> Vec<SecretUse> {
    let given = |name: &&str| SecretUse {
        name: (*name).to_owned(),
        env: None,
    };
    names.iter().map(given).collect()
}

/// A launch of stages `plain`, `keeps db` and `follows db`, and `last`, with these values.
fn launch(size: usize, secrets: &SealedSecrets) -> Input {
    let names = ["plain", "keeps db", "follows db", "last"];
    launch_of(&spec(&[size], &[]), &names, secrets)
}

/// A launch of these stages, each with the secret that is the second word of its name.
fn launch_of(spec: &ClusterSpec, names: &[&str], secrets: &SealedSecrets) -> Input {
    let Input::Launch(mut ask) = ask(spec, names) else {
        panic!("a launch")
    };
    for plan in ask.stages.values_mut().flatten() {
        if let Some((how, name)) = plan.name.split_once(' ') {
            plan.secrets = given(&[name]);
            if how == "follows" {
                let version = secrets[name].version.clone();
                plan.secret_versions = SecretVersions::from([(name.to_owned(), version)]);
            }
        }
        let key = std::mem::take(&mut plan.key);
        plan.key = key_with_secrets(key, &plan.secrets, &plan.secret_versions);
    }
    ask.secrets = secrets.clone();
    Input::Launch(ask)
}

/// A command that is given these.
fn exec_with(secrets: &[&str]) -> Input {
    let exec = Exec {
        argv: vec!["true".to_owned()],
        secrets: given(secrets),
        ..Exec::default()
    };
    Input::Exec(ExecAsk {
        cluster: cluster(),
        instances: vec![key("a1").instance],
        kind: JobKind::Exec,
        task: Task::Command(exec),
        pace: Pace::default(),
        queue_ms: 0,
        what: String::new(),
        operator: String::new(),
        request: None,
    })
}

fn runs(sim: &Sim) -> [u32; 4] {
    let of = |stage: &str| sim.started.get(&(key("a1"), stage.to_owned())).copied();
    ["plain", "keeps db", "follows db", "last"].map(|stage| of(stage).unwrap_or(0))
}

fn ready(sim: &mut Sim, input: Input) {
    sim.input(input);
    sim.run_until_quiet();
    assert_eq!(
        (sim.phases(), last_code(sim)),
        (BTreeSet::from([Phase::Ready]), 0)
    );
}

#[test]
fn another_value_runs_again_what_asks_for_that_and_what_follows_it() {
    let mut sim = Sim::new();
    ready(&mut sim, launch(1, &sealed(&[("db", "1"), ("tls", "1")])));
    assert_eq!(runs(&sim), [1, 1, 1, 1]);
    let answer = sim.input(launch(1, &sealed(&[("db", "1"), ("tls", "2")])));
    assert!(matches!(answer, Answer::UpToDate(_)), "{answer:?}");
    sim.run_until_quiet();
    ready(&mut sim, launch(1, &sealed(&[("db", "2"), ("tls", "2")])));
    assert_eq!(runs(&sim), [1, 1, 2, 2]);
}

#[test]
fn a_run_is_given_what_its_stage_names_as_it_is_on_record_and_no_other_has_any() {
    let mut sim = Sim::new();
    ready(&mut sim, launch(1, &sealed(&[("db", "1"), ("tls", "1")])));
    let mut all: Vec<_> = sim.secrets.values().cloned().collect();
    let db = |version: &str| vec![("db".to_owned(), Some(version.to_owned()))];
    assert_eq!(all, [db("1"), db("1")]);
    ready(&mut sim, launch(1, &sealed(&[("db", "2")])));
    all = sim.secrets.values().cloned().collect();
    all.sort();
    assert_eq!(all, [db("1"), db("1"), db("2")]);
}

#[test]
fn a_run_is_told_where_its_machine_reads_a_secret_and_the_newest_file_counts() {
    let mut sim = Sim::new();
    let on_machine = |id: &str| {
        let Input::Launch(mut ask) = launch(1, &sealed(&[("db", "1")])) else {
            panic!("a launch")
        };
        let at = AwsSecret {
            id: id.to_owned(),
            region: None,
            version: None,
            on_machine: true,
        };
        // What is on record from before is given to nobody.
        ask.spec
            .secrets
            .insert("db".to_owned(), SecretSource::Ssm(at));
        Input::Launch(ask)
    };
    ready(&mut sim, on_machine("/a"));
    let given = |sim: &Sim| sim.secrets.values().cloned().collect::<Vec<_>>();
    let at = |id: &str| vec![("db".to_owned(), Some(format!("at {id}")))];
    assert_eq!(given(&sim), [at("/a"), at("/a")]);
    // Another place is another file, but runs nothing again by itself; commands go by it.
    sim.input(on_machine("/b"));
    sim.run_until_quiet();
    assert_eq!(runs(&sim), [1, 1, 1, 1]);
    sim.secrets.clear();
    sim.input(exec_with(&["db"]));
    sim.run_until_quiet();
    assert_eq!(given(&sim), [at("/b")]);
}

#[test]
fn a_value_that_is_the_same_stays_as_it_was_sealed() {
    let mut sim = Sim::new();
    let first = sealed(&[("db", "1")]);
    ready(&mut sim, launch(1, &first));
    let mut again = first.clone();
    "anew".clone_into(&mut again.get_mut("db").expect("is there").sealed);
    sim.input(launch(1, &again));
    assert_eq!(sim.world.clusters[&cluster()].secrets, first);
}

#[test]
fn a_launch_with_another_value_takes_over_from_the_one_that_runs() {
    let mut sim = Sim::new();
    let Answer::Started(first) = sim.input(launch(1, &sealed(&[("db", "1")]))) else {
        panic!("it starts")
    };
    let same = sim.input(launch(1, &sealed(&[("db", "1")])));
    assert!(matches!(same, Answer::Started(job) if job == first));
    let other = sim.input(launch(1, &sealed(&[("db", "2")])));
    assert!(matches!(other, Answer::Started(job) if job != first));
    sim.run_until_quiet();
    let of_runs: BTreeSet<_> = sim.secrets.values().flatten().cloned().collect();
    assert_eq!(of_runs, [("db".to_owned(), Some("2".to_owned()))].into());
}

#[test]
fn what_is_run_again_after_a_crash_or_a_restart_is_given_them_again() {
    let mut sim = Sim::new();
    ready(&mut sim, launch(2, &sealed(&[("db", "1")])));
    sim.crash();
    sim.input(Input::Tick);
    sim.run_until_quiet();
    ready(&mut sim, launch(2, &sealed(&[("db", "2")])));
    let second = |given: &&Vec<(String, Option<String>)>| given[0].1.as_deref() == Some("2");
    assert_eq!(sim.secrets.values().filter(second).count(), 2);
}

#[test]
fn a_command_is_given_what_the_cluster_has_when_it_is_started_or_nothing() {
    let mut sim = Sim::new();
    ready(&mut sim, launch(1, &sealed(&[("db", "1")])));
    sim.secrets.clear();
    sim.input(exec_with(&["db", "gone"]));
    sim.run_until_quiet();
    let want = [
        ("db".to_owned(), Some("1".to_owned())),
        ("gone".to_owned(), None),
    ];
    assert_eq!(sim.secrets.values().next().expect("one run"), &want);
}

#[test]
fn a_stage_that_waits_for_its_turn_is_given_what_it_names_or_none_when_its_file_names_none_any_more()
 {
    let mut spec = spec(&[4], &[]);
    spec.pools[0].update.concurrency = Some(crate::pace::Amount::Count(1));
    let mut sim = Sim::new();
    let names = ["keeps db", "follows db"];
    ready(&mut sim, launch_of(&spec, &names, &sealed(&[("db", "1")])));
    sim.input(launch_of(&spec, &names, &sealed(&[("db", "2")])));
    // The first one is under way, three wait: the next file has neither the secret nor a stage that needs it.
    sim.run_until(|sim| sim.secrets.len() == 9);
    sim.input(launch_of(&spec, &["keeps", "follows"], &sealed(&[])));
    sim.run_until_quiet();
    assert_eq!(
        (sim.phases(), last_code(&sim)),
        (BTreeSet::from([Phase::Ready]), 0)
    );
    let given: BTreeSet<_> = sim.secrets.values().flatten().cloned().collect();
    let db = |version: &str| ("db".to_owned(), Some(version.to_owned()));
    assert_eq!(given, [db("1"), db("2")].into(), "and never without");
    assert_eq!(sim.secrets.len(), 9);
    for name in ["a1", "a2", "a3", "a4"] {
        for stage in ["keeps", "follows"] {
            let count = sim.started.get(&(key(name), stage.to_owned()));
            assert_eq!(count, Some(&1), "{name} {stage}");
        }
    }
}

#[test]
fn an_instance_that_the_file_has_dropped_with_its_secret_has_no_stage_without_it() {
    let mut sim = Sim::new();
    let (both, names) = (spec(&[1, 1], &[]), ["plain", "keeps db"]);
    sim.input(launch_of(&both, &names, &sealed(&[("db", "1")])));
    sim.run_until(|sim| sim.started.contains_key(&(key("b1"), "plain".to_owned())));
    sim.input(launch_of(&spec(&[1], &[]), &["plain"], &sealed(&[])));
    sim.run_until_quiet();
    // It is asked for by name, so that whoever gives it says that it is gone.
    let of_b = sim.secrets.values().filter(|given| given[0].1.is_none());
    assert_eq!(of_b.count(), 1);
}

#[test]
fn a_run_that_its_agent_never_got_is_not_given_as_its_stage_has_become() {
    for changed in [&["plain", "keeps", "follows"][..], &["plain"]] {
        let mut sim = Sim::new();
        ready(&mut sim, launch(1, &sealed(&[("db", "1")])));
        sim.input(launch(1, &sealed(&[("db", "2")])));
        let on_its_way = |effect: &Effect| matches!(effect, Effect::StartWithSecrets { .. });
        sim.run_until(|sim| sim.pending.iter().any(on_its_way));
        let Some(index) = sim.pending.iter().position(on_its_way) else {
            panic!("it was there")
        };
        // The link is cut before the agent has it, and the file is another one when the agent is back.
        sim.pending.remove(index);
        let agent = sim.agents.get_mut(&key("a1")).expect("it joined");
        let session = agent.session.take().expect("is connected");
        let why = "cut".to_owned();
        sim.agent(key("a1"), session, AgentInput::Closed { why });
        let lost: Vec<RunId> = sim.world.runs.keys().copied().collect();
        sim.input(launch_of(&spec(&[1], &[]), changed, &sealed(&[])));
        sim.run_until_quiet();
        let agent = &sim.agents[&key("a1")];
        let [lost] = lost[..] else {
            panic!("one run was on its way")
        };
        assert!(!sim.secrets.contains_key(&lost), "{changed:?}");
        assert_eq!(agent.journal.get(&lost), Some(&true), "only forgotten");
        assert_eq!(
            (sim.phases(), last_code(&sim)),
            (BTreeSet::from([Phase::Ready]), 0)
        );
        for stage in &changed[1..] {
            let count = sim.started.get(&(key("a1"), (*stage).to_owned()));
            assert_eq!(count, Some(&1), "{stage}");
        }
    }
}

#[test]
fn no_record_shows_what_is_sealed() {
    let mut sim = Sim::new();
    ready(&mut sim, launch(1, &sealed(&[("db", "1")])));
    let shown = format!("{:?}", sim.world.clusters[&cluster()]);
    assert!(!shown.contains("sealed db"), "{shown}");
}
