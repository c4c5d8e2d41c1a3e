//! What is begun only in records of a later level.

use super::*;
use crate::health::{HealthCheck, HealthSpec};
use crate::level::LEVEL;
use crate::pace::PacePolicy;
use crate::secret::{SecretSource, SecretUse};

fn secret() -> SecretUse {
    SecretUse {
        name: "token".to_owned(),
        env: None,
    }
}

fn pace() -> PacePolicy {
    PacePolicy {
        canary: Some(1),
        ..PacePolicy::default()
    }
}

/// A launch of one instance with this difference.
fn launch(change: impl Fn(&mut LaunchAsk)) -> Input {
    let Input::Launch(mut launch) = ask(&spec(&[1], &[]), &["a"]) else {
        unreachable!("it asks for a launch")
    };
    change(&mut launch);
    Input::Launch(launch)
}

fn plan(ask: &mut LaunchAsk) -> &mut StagePlan {
    let mut plans = ask.stages.values_mut().flatten();
    plans.next().expect("it has one")
}

fn command(secrets: Vec<SecretUse>) -> Input {
    Input::Exec(ExecAsk {
        cluster: cluster(),
        instances: vec![key("a1").instance],
        kind: JobKind::Exec,
        task: Task::Command(Exec {
            secrets,
            ..Exec::default()
        }),
        pace: Pace::default(),
        queue_ms: 0,
        what: String::new(),
        operator: String::new(),
        request: None,
    })
}

fn record(kind: JobKind) -> Input {
    let id = JobId::from_parts(1, 1);
    let job = Job::new(id, kind, cluster(), String::new(), String::new(), 1);
    Input::Record(Box::new(job))
}

#[test]
fn what_came_with_a_level_is_refused_below_it_by_its_name() {
    let env = || SecretSource::Env("TOKEN".to_owned());
    let table = [
        (launch(|_| ()), ""),
        (
            launch(|it| {
                it.spec.vars.insert("name".to_owned(), 1.into());
            }),
            "a variable",
        ),
        (
            launch(|it| {
                it.spec.secrets.insert("token".to_owned(), env());
            }),
            "a secret",
        ),
        (launch(|it| it.spec.pools[0].update = pace()), "a pace"),
        (
            launch(|it| it.spec.pools[0].health = Some(HealthSpec::new(HealthCheck::Ping))),
            "a health check",
        ),
        (launch(|it| it.pace = pace()), "a pace"),
        (launch(|it| plan(it).templates = true), "a template"),
        (launch(|it| plan(it).secrets.push(secret())), "a secret"),
        (command(Vec::new()), ""),
        (command(vec![secret()]), "a secret"),
        (record(JobKind::Shell), ""),
        (record(JobKind::Forward), "a forward"),
        (Input::Tick, ""),
    ];
    for (input, what) in table {
        let refused = input.refusal_at(1).map(|error| error.to_string());
        let expected = (!what.is_empty()).then(|| {
            format!(
                "the cluster's records are of level 1, and {what} needs 2: once all masters have this version, `aot-master fleet level`"
            )
        });
        assert_eq!(refused, expected, "{input:?}");
        assert_eq!(input.refusal_at(LEVEL), None, "{input:?}");
    }
}
