//! A follower that waits until instances are what they are to be: how many are, and when that is all of them or too late.
//! Called by `events` after whatever may have changed that; never asks a provider.

use aot_model::instance::Instance;
use aot_model::machine::MachineState;
use aot_model::world::Input;
use aot_proto::ids::InstanceName;
use aot_proto::plural;
use aot_proto::v1;

use super::joined::has_left;
use super::{ClusterFollower, Goal, Until};
use crate::run::now_ms;

impl ClusterFollower {
    /// Reports how many are there; ends when all are.
    pub(super) async fn is_reached(&self) -> bool {
        if has_left(&self.api, &self.cluster) {
            return false; // there is nothing to see here
        }
        let gone = Goal::State(MachineState::Terminated);
        let (instances, goal, may_stay) = match &self.until {
            Until::Reached {
                instances, goal, ..
            } => (instances, goal, false),
            Until::Terminated { instances, .. } => (instances, &gone, true),
            _ => return false,
        };
        // With each, whether its machine stays: the intent to end it has been dropped.
        let missing: Vec<(&InstanceName, bool)> = self.api.engine.read(&self.cluster, |world| {
            let cluster = world.clusters.get(&self.cluster);
            let missing = instances.iter().filter_map(|name| {
                let instance = cluster.and_then(|c| c.instances.get(name));
                let stays = may_stay && instance.is_some_and(Instance::has_machine);
                (!goal.is_met(name, instance)).then_some((name, stays))
            });
            missing.collect()
        });
        let over = missing.iter().all(|(_, stays)| *stays);
        let refused = over && !missing.is_empty();
        if over {
            self.reconcile().await;
        }
        let there = instances.len() - missing.len();
        let mut message = format!(
            "[{there}/{}] instances '{}'{}",
            instances.len(),
            goal.name(),
            if over { "" } else { ", waiting..." }
        );
        if refused {
            for (name, _) in &missing {
                let why = self.refused.get(name.as_str());
                let why = why.map_or("its machine stays", String::as_str);
                message = format!("{message}; {name}: {why}");
            }
        }
        let event = v1::Event {
            unix_ms: now_ms(),
            cluster: self.cluster.to_string(),
            event: "wait-progress".to_owned(),
            message,
            exit_code: u32::from(refused),
            last: over,
            ..v1::Event::default()
        };
        self.sender.send(Ok(event)).await.is_err() || over
    }

    /// What is seen here is on record: a job's end before whoever asked for it hears of it.
    async fn reconcile(&self) {
        let job = match &self.until {
            Until::Reached { job, .. } => *job,
            Until::Terminated { job, .. } => Some(*job),
            _ => None,
        };
        if job.is_some() {
            let cluster = self.cluster.clone();
            let input = Input::Reconcile { cluster };
            let _ = self.api.engine.ask(input).await; // without an answer: as it was last
        }
    }

    pub(super) async fn give_up(&self) {
        let Until::Reached {
            instances, goal, ..
        } = &self.until
        else {
            return;
        };
        self.reconcile().await;
        let event = v1::Event {
            unix_ms: now_ms(),
            cluster: self.cluster.to_string(),
            event: "wait-ended".to_owned(),
            message: format!(
                "not all of {} became '{}' in time",
                plural::count(instances.len(), "instance"),
                goal.name()
            ),
            last: true,
            exit_code: 1,
            ..v1::Event::default()
        };
        let _ = self.sender.send(Ok(event)).await;
    }
}
