//! What comes in arrives at the world of its cluster, and none waits for another.

mod inputs;
mod owned;
mod rig;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aot_model::hash::JoinKey;
use aot_model::job::Job;
use aot_model::outcome::{Outcome, Verdict};
use aot_model::world::OpError;
use aot_proto::ids::{JobId, RunId};
use aot_proto::v1;
use aot_store::Store;
use tokio::time::timeout;

use super::super::engine::Unanswered;
use super::super::now_ms;
use super::*;
use inputs::{boot_step, delete_orphans, enrol, exec, launch, of_nobody};
use rig::{Rig, cluster, job, name, run, web1};

/// Longest wait for what is to happen: none ends by it.
const LIMIT: Duration = Duration::from_secs(60);

async fn ask(engines: &Engines, input: Input) -> Answer {
    let answer = timeout(LIMIT, engines.ask(input)).await;
    answer.expect("it answers").expect("it does not stop")
}

fn job_of(answer: &Answer) -> JobId {
    match answer {
        Answer::Exec { job, .. } | Answer::Started(job) | Answer::UpToDate(job) => *job,
        other => panic!("{other:?} is not about a job"),
    }
}

/// The jobs that each world has.
fn jobs(engines: &Engines) -> Vec<(ClusterName, BTreeSet<JobId>)> {
    let all = engines.all().into_iter();
    let of = |engine: &Engine| engine.read(|world| world.jobs.keys().copied().collect());
    all.map(|(name, engine)| (name, of(&engine))).collect()
}

/// Waits until a loop has ended by itself.
async fn ended(engines: &Engines, cluster: &ClusterName) {
    let ended = async {
        while engines.get(cluster).is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, ended).await.expect("the loop ends");
}

#[tokio::test]
async fn what_comes_in_arrives_at_the_world_of_its_cluster() {
    let rig = Rig::of(&["a", "b"]).await;
    let engines = &rig.engines;
    let (of_a, of_b) = (
        job_of(&ask(engines, exec("a")).await),
        job_of(&ask(engines, exec("b")).await),
    );
    let recorded = job("b", 1);
    ask(engines, Input::Record(Box::new(recorded.clone()))).await;
    let want = [
        (name("a"), [of_a].into()),
        (name("b"), [of_b, recorded.id].into()),
    ];
    assert_eq!(jobs(engines), want);
    let follow = |cluster, job| Input::Follow { cluster, job };
    let (updates, _keep) = mpsc::channel(16);
    let followed = engines.follow(follow(name("b"), of_b), updates).await;
    assert_eq!(job_of(&followed.expect("it does not stop")), of_b);
    let elsewhere = ask(engines, follow(name("a"), of_b)).await;
    assert!(matches!(elsewhere, Answer::Error(OpError::NoJob(_))));
    let cancel = Input::Cancel {
        cluster: name("b"),
        job: of_b,
        grace_ms: 0,
        operator: "uid 0".to_owned(),
    };
    assert_eq!(job_of(&ask(engines, cancel).await), of_b);
    let open = |cluster: &ClusterName, job| engines.read(cluster, |world| world.jobs[&job].open());
    assert_eq!((open(&name("a"), of_a), open(&name("b"), of_b)), (1, 0));
    rig.end().await;
}

#[tokio::test]
async fn a_token_leads_to_the_cluster_with_its_batch_and_an_unknown_one_nowhere() {
    let rig = Rig::of(&["a", "b"]).await;
    let engines = &rig.engines;
    for cluster in ["a", "b"] {
        let token = format!("token of {cluster}");
        assert_eq!(engines.cluster_of_token(&token), Some(name(cluster)));
        let told = ask(engines, boot_step(&token)).await;
        let other = Refused::OtherMachine("i-1".parse().expect("an id"));
        assert!(
            matches!(told, Answer::Refused(why) if why == other),
            "{token}"
        );
        let enrolled = ask(engines, Input::Enrol(enrol(&token))).await;
        // Until its call has failed, and after that.
        let known = matches!(
            enrolled,
            Answer::Refused(Refused::TooEarly | Refused::OtherMachine(_))
        );
        assert!(known, "{enrolled:?}");
    }
    for input in [boot_step("none"), Input::Enrol(enrol("none"))] {
        let answer = ask(engines, input).await;
        assert!(matches!(answer, Answer::Refused(Refused::UnknownToken)));
    }
    assert_eq!(engines.all().len(), 2, "an unknown token starts nothing");
    // Whoever decides holds nobody up who has another cluster's token.
    let busy = engines.get(&name("a")).expect("it runs").world;
    let deciding = busy.write().expect("nobody panics");
    assert_eq!(engines.cluster_of_token("token of b"), Some(name("b")));
    assert_eq!(engines.instance_count(), 6);
    drop(deciding);
    rig.end().await;
}

#[tokio::test]
async fn orphans_are_deleted_in_the_world_that_a_cluster_of_their_name_would_have() {
    let rig = Rig::of(&["a"]).await;
    let engines = &rig.engines;
    let ours = ask(engines, delete_orphans("a", "uuid of a")).await;
    assert!(matches!(ours, Answer::Error(OpError::Conflict(_))));
    let begun = job_of(&ask(engines, delete_orphans("old", "5f0c")).await);
    assert_eq!(engines.clusters(), [name("a")]);
    // The provider's answer gets there too.
    let is_over = |world: &World| world.jobs[&begun].ended_ms.is_some();
    let over = async {
        while !engines.read(&name("old"), is_over) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, over).await.expect("they are deleted");
    rig.end().await;
}

#[test]
fn what_a_loop_brings_to_itself_names_no_cluster() {
    let (job, run) = (JobId::from_parts(1, 1), RunId::from_parts(1, 1));
    let text = String::new();
    for input in [
        Input::Tick,
        Input::Measured { run, bytes: 1 },
        Input::OrphansSeen { job, text },
    ] {
        assert_eq!(input.routing_key(), RoutingKey::OwnWorld);
    }
}

#[tokio::test]
async fn a_cluster_that_is_not_there_answers_as_an_empty_world_does() {
    let rig = Rig::of(&["a"]).await;
    let engines = &rig.engines;
    for (input, same) in of_nobody().into_iter().zip(of_nobody()) {
        let shown = format!("{input:?}");
        let gone = name("gone");
        assert_eq!(input.routing_key(), RoutingKey::Cluster(&gone), "{shown}");
        let key = JoinKey::new(b"key");
        let mut empty = World::new(vec![], vec![], vec![], key, [0; 32], now_ms());
        let want = format!("{:?}", empty.step(input, now_ms()).0);
        let answer = format!("{:?}", ask(engines, same).await);
        assert_eq!(answer, want, "{shown}");
    }
    assert_eq!(engines.clusters(), [name("a")]);
    assert!(engines.read(&name("gone"), World::is_vacant));
    ended(engines, &name("gone")).await;
    assert!(engines.read(&name("gone"), World::is_vacant));
    assert_eq!(engines.all().len(), 1, "the other continues");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn launches_of_one_new_name_at_once_make_one_world() {
    let rig = Rig::of(&[]).await;
    let engines = &rig.engines;
    let asked = (0..32).map(|_| {
        let engines = engines.clone();
        rig.tasks
            .spawn(async move { job_of(&ask(&engines, launch("new")).await) })
    });
    for begun in asked.collect::<Vec<_>>() {
        let id = begun.await.expect("it is answered");
        let is_there = |world: &World| world.jobs.contains_key(&id);
        assert!(engines.read(&name("new"), is_there));
    }
    assert_eq!(engines.clusters(), [name("new")]);
    let worlds = engines.0.seeds.drawn.load(Ordering::Relaxed);
    assert_eq!(worlds, 3, "the vacant one, the feed and one more");
    rig.end().await;
}

#[tokio::test]
async fn of_several_that_find_no_loop_at_the_same_moment_one_starts_it() {
    let rig = Rig::of(&[]).await;
    // All have looked for it by now.
    for _ in 0..3 {
        let hold = rig.engines.0.parts.hold.clone();
        rig.engines
            .start_loaded(name("new"), Loaded::default(), hold, false);
    }
    let worlds = rig.engines.0.seeds.drawn.load(Ordering::Relaxed);
    assert_eq!(worlds, 3, "the vacant one, the feed and one more");
    rig.end().await;
}

#[tokio::test]
async fn what_is_on_its_way_to_a_loop_that_ends_is_led_to_the_next() {
    let rig = Rig::of(&[]).await;
    let engines = &rig.engines;
    // Its loop decides nothing any more, as that of one that is about to end.
    let seed = engines.0.seeds.draw();
    let old = world_of(Loaded::default(), &engines.0.parts, seed, now_ms());
    let (engine, queue) = Engine::new(
        old,
        engines.0.parts.hold.clone(),
        engines.0.events.clone(),
        rig.stop.child_token(),
    );
    {
        let mut all = engines.0.engines.write().expect("nobody panics");
        all.insert(name("x"), engine.clone());
    }
    // More than its queue holds: some of them are in it, the rest wait for room.
    let count = queue.max_capacity() + 10;
    let asked = (0..count).map(|number| {
        let (engines, number) = (engines.clone(), number as u128);
        let record = Input::Record(Box::new(job("x", number)));
        rig.tasks
            .spawn(async move { job_of(&ask(&engines, record).await) })
    });
    let asked: Vec<_> = asked.collect();
    let filled = async {
        while queue.capacity() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, filled).await.expect("the queue fills");
    engines.end(&name("x"), &engine, queue).await;
    let mut ids = BTreeSet::new();
    for one in asked {
        ids.insert(one.await.expect("it is answered"));
    }
    assert_eq!(ids.len(), count);
    assert_eq!(jobs(engines), [(name("x"), ids)]);
    rig.end().await;
}

#[tokio::test]
async fn a_loop_ends_once_nothing_is_left_and_begins_again_with_what_comes() {
    let rig = Rig::of(&[]).await;
    let engines = &rig.engines;
    let open = job("x", 1);
    ask(engines, Input::Record(Box::new(open.clone()))).await;
    let poll = || Input::Poll { cluster: name("y") };
    for _ in 0..2 {
        ask(engines, poll()).await;
        ended(engines, &name("y")).await;
    }
    assert_eq!(jobs(engines), [(name("x"), [open.id].into())], "it is open");
    let over = Job {
        targets: [(web1(), Some(Verdict::without_run(Outcome::Succeeded, "")))].into(),
        ..open
    };
    ask(engines, Input::Record(Box::new(over))).await;
    ended(engines, &name("x")).await;
    ask(engines, launch("x")).await;
    assert_eq!(engines.clusters(), [name("x")]);
    rig.end().await;
}

#[tokio::test]
async fn a_cluster_whose_write_hangs_holds_up_no_other() {
    let rig = Rig::of(&["a", "b"]).await;
    let engines = &rig.engines;
    rig.store.shut("a");
    let asking = engines.clone();
    let hanging = rig
        .tasks
        .spawn(async move { ask(&asking, exec("a")).await });
    let mut waiting = rig.store.waiting.subscribe();
    let stuck = timeout(LIMIT, waiting.wait_for(|count| *count > 0)).await;
    stuck.expect("it writes").expect("the store is there");
    for _ in 0..20 {
        job_of(&ask(engines, exec("b")).await);
    }
    job_of(&ask(engines, launch("c")).await);
    assert_eq!(engines.clusters(), [name("a"), name("b"), name("c")]);
    assert_eq!(
        engines.cluster_of_token("token of a"),
        Some(name("a")),
        "who reads does not wait for a write"
    );
    assert!(!hanging.is_finished(), "it is not on disk");
    rig.store.open();
    job_of(
        &timeout(LIMIT, hanging)
            .await
            .expect("it is written")
            .expect("it ends"),
    );
    rig.end().await;
}

#[tokio::test]
async fn what_is_on_record_is_loaded_by_cluster_also_jobs_of_clusters_that_are_gone() {
    let (of_a, of_gone) = (job("a", 1), job("gone", 2));
    let rig = Rig::start(Loaded {
        clusters: vec![cluster("b", 1), cluster("a", 2)],
        jobs: vec![of_a.clone(), of_gone.clone()],
        runs: vec![run(&of_a, 3)],
    })
    .await;
    let engines = &rig.engines;
    let want = [
        (name("a"), [of_a.id].into()),
        (name("b"), [].into()),
        (name("gone"), [of_gone.id].into()),
    ];
    assert_eq!(jobs(engines), want);
    assert_eq!(engines.clusters(), [name("a"), name("b")]);
    assert_eq!(engines.read_each(|world| world.runs.len()), [1, 0, 0]);
    assert_eq!(engines.instance_count(), 3);
    for (name, engine) in engines.all() {
        assert!(engine.read(|world| world.is_only(&name)), "{name}");
    }
    rig.end().await;
}

#[tokio::test]
async fn a_loop_is_there_while_an_end_waits_for_its_output_to_be_put_and_then_decides_on_it() {
    let all = [job("a", 1), job("gone", 2)];
    let runs = [run(&all[0], 3), run(&all[1], 4)];
    let rig = Rig::start(Loaded {
        clusters: vec![cluster("a", 1), cluster("b", 1)],
        jobs: all.to_vec(),
        runs: runs.to_vec(),
    })
    .await;
    let engines = &rig.engines;
    // Nothing can be put below a file.
    let place = rig.dir.path().join("blobs");
    std::fs::write(&place, "in the way").expect("writes");
    let ended_well = v1::Ended {
        kind: v1::EndKind::Exited.into(),
        ..v1::Ended::default()
    };
    for run in &runs {
        std::fs::write(rig.spools.path(run.id), "output").expect("writes");
        for cluster in [&run.at.cluster, &name("none")] {
            let end = Box::new(ended_well.clone());
            engines.submit_once_put(&rig.outputs, cluster, run.id, end);
        }
    }
    // Loops of which nothing is left come and go meanwhile.
    for _ in 0..3 {
        ask(engines, Input::Poll { cluster: name("y") }).await;
        ended(engines, &name("y")).await;
    }
    assert_eq!(engines.read_each(|world| world.runs.len()), [1, 0, 1]);
    assert!(engines.get(&name("none")).is_none());

    std::fs::remove_file(&place).expect("was there");
    ended(engines, &name("gone")).await;
    let forgotten = async {
        while engines.read(&name("a"), |world| !world.jobs.is_empty()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, forgotten).await.expect("its job is over");
    for job in all {
        let stored = rig.store.runs_of(job.id).await.expect("reads");
        let verdicts = stored.iter().map(|run| run.verdict.clone());
        let outcomes: Vec<_> = verdicts.map(|it| it.map(|it| it.outcome)).collect();
        assert_eq!(outcomes, [Some(Outcome::Succeeded)], "{}", job.cluster);
    }
    rig.end().await;
}

#[tokio::test]
async fn of_a_master_that_may_live_the_calls_of_every_cluster_are_doubted() {
    let mut clusters = vec![cluster("a", 1), cluster("b", 1)];
    for cluster in &mut clusters {
        let batches = cluster.batches.values_mut();
        batches.for_each(|batch| batch.unsure_ms = 1);
    }
    let rig = Rig::inherit(Inherited {
        loaded: Loaded {
            clusters,
            ..Loaded::default()
        },
        is_taken_over: true,
    })
    .await;
    for cluster in ["a", "b"].map(name) {
        let doubted = rig.engines.read(&cluster, |world| {
            world.clusters[&cluster].batches["batch"].doubt_until_ms > 0
        });
        assert!(doubted, "{cluster}");
    }
    rig.end().await;
}

#[tokio::test]
async fn all_loops_end_with_the_master_and_nothing_is_asked_any_more() {
    let rig = Rig::of(&["a", "b"]).await;
    let engines = rig.engines.clone();
    timeout(LIMIT, rig.end()).await.expect("the loops end");
    for input in [exec("a"), launch("new"), boot_step("none")] {
        let refused = engines.ask(input).await.expect_err("nobody answers");
        assert_eq!(refused, Unanswered::Stopping);
    }
}

#[test]
fn no_two_worlds_have_a_seed() {
    let seeds = Seeds::new(&[7; 32]);
    let drawn: BTreeSet<[u8; 32]> = (0..1000).map(|_| seeds.draw()).collect();
    assert_eq!(drawn.len(), 1000);
}
