//! The one owner of state: takes inputs, lets `model::world` decide, writes what changed, then does what is to be done.
//!
//! Called by `server` through `Engine`. Decides nothing itself.

pub mod agents;
mod effects;
pub mod janitor;
pub mod prepare;
pub mod providers;
pub mod stop;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aot_proto::ids::{InstanceName, JobId, RunId};
use aot_proto::v1;
use prost::bytes::Bytes;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::model::cluster::UnixMs;
use crate::model::event::Event;
use crate::model::hash::JoinKey;
use crate::model::job::Verdict;
use crate::model::world::{Answer, Changes, Effect, Input, TargetState, World};
use crate::session::registry::Registry;
use crate::store::Store;
use crate::store::spool::{Reader, Spools};

/// Inputs that may wait for a decision. When full, whoever brings one waits.
const INPUTS: usize = 1024;

/// Most inputs that share one write to disk: all that wait.
const BATCH: usize = INPUTS;

/// Settling takes at most one part in so many of the loop's time: the more instances a cluster has, the more of what
/// happens to them shares one look at all of them.
const SETTLE_SHARE: u32 = 5;

/// Events that a slow watcher may be behind. Past it, it is given a new snapshot.
const EVENTS: usize = 8192;

/// How often time is an input.
const TICK: Duration = Duration::from_millis(250);

/// Milliseconds since 1970.
pub fn now_ms() -> UnixMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An event as it is told, and the job that it ends, if it does.
#[derive(Debug, Clone)]
pub struct Told {
    /// As it goes over the socket.
    pub event: v1::Event,
    /// Job that it ends.
    pub ends: Option<JobId>,
}

/// What whoever follows a job is told.
pub enum JobNews {
    /// A run began; this reads its output from its start.
    Began(InstanceName, Reader),
    /// A target has ended; once more when `lost_contact` turns into what it really came to.
    Ended(InstanceName, Verdict),
    /// Neither.
    Note(Option<InstanceName>, String),
}

/// News that a follower of a job with so many targets may be behind.
pub fn news_of(targets: usize) -> usize {
    4 * targets + 16
}

struct Message {
    input: Input,
    spool: Option<(RunId, Bytes)>,
    news: Option<mpsc::Sender<JobNews>>,
    reply: Option<oneshot::Sender<Answer>>,
}

/// Everything that effects are done with.
pub struct Parts {
    /// Records.
    pub store: Arc<Store>,
    /// Outputs.
    pub spools: Arc<Spools>,
    /// Sessions.
    pub registry: Arc<Registry>,
    /// Who makes machines.
    pub providers: Arc<providers::Providers>,
    /// Agents that are handed out.
    pub agents: Arc<agents::Agents>,
    /// CA, PEM.
    pub ca_pem: String,
    /// Behind the join tokens.
    pub join_key: JoinKey,
    /// Owner of all tasks.
    pub tasks: TaskTracker,
}

/// The way to whoever decides. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inputs: mpsc::Sender<Message>,
    world: Arc<RwLock<World>>,
    events: broadcast::Sender<Told>,
}

impl Engine {
    /// Starts the loop. It ends when `stop` fires and nothing waits.
    pub fn start(world: World, parts: Arc<Parts>, stop: CancellationToken) -> Self {
        let (inputs, queue) = mpsc::channel(INPUTS);
        let (events, _) = broadcast::channel(EVENTS);
        let engine = Self {
            inputs,
            world: Arc::new(RwLock::new(world)),
            events,
        };
        let owner = Loop {
            engine: engine.clone(),
            parts: parts.clone(),
            followers: HashMap::new(),
            settle_from: Instant::now(),
        };
        parts.tasks.spawn(owner.run(queue, stop));
        engine
    }

    /// Brings an input and waits until it is decided and on disk. `None` when the master is stopping.
    pub async fn ask(&self, input: Input) -> Option<Answer> {
        let (reply, decided) = oneshot::channel();
        self.send(Message {
            input,
            spool: None,
            news: None,
            reply: Some(reply),
        })
        .await;
        decided.await.ok()
    }

    /// Brings an input about a job; what happens to it from then on comes through `news`, see [`news_of`]. A follower that
    /// is too far behind is let go.
    pub async fn follow(&self, input: Input, news: mpsc::Sender<JobNews>) -> Option<Answer> {
        let (reply, decided) = oneshot::channel();
        self.send(Message {
            input,
            spool: None,
            news: Some(news),
            reply: Some(reply),
        })
        .await;
        decided.await.ok()
    }

    /// Brings an input that nobody waits for.
    pub async fn tell(&self, input: Input) {
        self.send(Message {
            input,
            spool: None,
            news: None,
            reply: None,
        })
        .await;
    }

    /// Brings the end of a run, with its spool when that goes to the store.
    pub async fn run_ended(&self, run: RunId, ended: v1::Ended, spool: Option<Bytes>) {
        let input = Input::RunEnded {
            run,
            ended: Box::new(ended),
        };
        self.send(Message {
            input,
            spool: spool.map(|bytes| (run, bytes)),
            news: None,
            reply: None,
        })
        .await;
    }

    async fn send(&self, message: Message) {
        let _ = self.inputs.send(message).await; // the loop is gone only when the master stops
    }

    /// Looks at the world, for a moment.
    pub fn look<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.world.read().expect("decisions do not panic"))
    }

    /// All that is told from now on.
    pub fn watch(&self) -> broadcast::Receiver<Told> {
        self.events.subscribe()
    }
}

struct Loop {
    engine: Engine,
    parts: Arc<Parts>,
    followers: HashMap<JobId, Vec<mpsc::Sender<JobNews>>>,
    /// Not before then are clusters settled again.
    settle_from: Instant,
}

struct Step {
    answer: Answer,
    effects: Vec<Effect>,
    news: Option<mpsc::Sender<JobNews>>,
    reply: Option<oneshot::Sender<Answer>>,
}

impl Loop {
    async fn run(mut self, mut queue: mpsc::Receiver<Message>, stop: CancellationToken) {
        self.take_in_what_ended().await;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let settled = self.engine.look(World::is_settled);
            let first = tokio::select! {
                Some(message) = queue.recv() => Some(message),
                _ = tick.tick() => Some(Message { input: Input::Tick, spool: None, news: None, reply: None }),
                () = tokio::time::sleep_until(self.settle_from), if !settled => None,
                () = stop.cancelled() => return,
            };
            let mut batch = Vec::from_iter(first);
            while batch.len() < BATCH
                && let Ok(more) = queue.try_recv()
            {
                batch.push(more);
            }
            if !self.decide(batch).await {
                stop.cancel(); // what can't be kept must not be done
                return;
            }
        }
    }

    /// Spools that were whole when the last master ended, whose end was not yet in the store.
    async fn take_in_what_ended(&mut self) {
        let open: Vec<RunId> = self
            .engine
            .look(|world| world.runs.keys().copied().collect());
        let ended = open
            .into_iter()
            .filter_map(|run| Some((run, self.parts.spools.synced_end_of(run)?)));
        let batch: Vec<Message> = ended
            .map(|(run, ended)| Message {
                input: Input::RunEnded {
                    run,
                    ended: Box::new(ended),
                },
                spool: None,
                news: None,
                reply: None,
            })
            .collect();
        if !batch.is_empty() {
            self.decide(batch).await;
        }
    }

    /// Decides on a batch, and on what follows from it and others before; writes once, then does all effects in order.
    /// `false` when the disk refused.
    async fn decide(&mut self, batch: Vec<Message>) -> bool {
        let now = now_ms();
        let ticked = batch
            .iter()
            .any(|message| matches!(message.input, Input::Tick));
        let mut spools = Vec::new();
        let mut steps = Vec::new();
        let (changes, follows) = {
            let shared = self.engine.world.clone();
            let mut world = shared.write().expect("decisions do not panic");
            for message in batch {
                spools.extend(message.spool);
                let (answer, effects) = world.take(message.input, now);
                steps.push(Step {
                    answer,
                    effects,
                    news: message.news,
                    reply: message.reply,
                });
            }
            let follows = self.settle(&mut world, now);
            (world.take_changes(), follows)
        };
        let settled = settled_runs(&changes);
        if !(changes.is_empty() && spools.is_empty())
            && let Err(error) = self.parts.store.commit(changes, spools).await
        {
            tracing::error!(%error, "the store refused a write; stopping before anything is done that it does not hold");
            return false;
        }
        for step in steps {
            self.finish(step, now);
        }
        for effect in follows {
            self.perform(effect, now);
        }
        for run in settled {
            self.parts.spools.settle(run);
        }
        if ticked {
            self.let_go();
        }
        true
    }

    /// What follows from all that was taken; of clusters only when it is their time again.
    fn settle(&mut self, world: &mut World, now: UnixMs) -> Vec<Effect> {
        let begun = Instant::now();
        if begun < self.settle_from {
            return world.settle_jobs(now);
        }
        let effects = world.settle(now);
        self.settle_from = begun + begun.elapsed() * SETTLE_SHARE;
        effects
    }

    fn finish(&mut self, step: Step, now: UnixMs) {
        if let (Answer::Exec { job, targets }, Some(news)) = (&step.answer, step.news) {
            for (instance, state) in targets {
                if let TargetState::Running(runs) = state {
                    for run in runs {
                        let reader = self.parts.spools.read(*run, None, true);
                        let _ = news.try_send(JobNews::Began(instance.clone(), reader)); // it holds so many
                    }
                }
            }
            self.followers.entry(*job).or_default().push(news);
        }
        if let Some(reply) = step.reply {
            let _ = reply.send(step.answer); // whoever asked may be gone
        }
        for effect in step.effects {
            self.perform(effect, now);
        }
    }

    /// Followers that have left.
    fn let_go(&mut self) {
        self.followers.retain(|_, all| {
            all.retain(|news| !news.is_closed());
            !all.is_empty()
        });
    }

    /// Tells those who follow a job; one that does not keep up is let go, and the job's record has it all.
    fn tell_followers(&mut self, job: JobId, news: impl Fn() -> JobNews) {
        if let Some(followers) = self.followers.get_mut(&job) {
            followers.retain(|follower| follower.try_send(news()).is_ok());
        }
    }

    fn publish(&self, event: &Event, now: UnixMs) {
        log(event);
        if self.engine.events.receiver_count() == 0 {
            return;
        }
        let told = Told {
            event: event.to_wire(now),
            ends: event.ends.map(|ends| ends.0),
        };
        let _ = self.engine.events.send(told); // nobody may be watching
    }
}

fn settled_runs(changes: &Changes) -> Vec<RunId> {
    changes
        .runs
        .iter()
        .filter(|run| run.verdict.is_some())
        .map(|run| run.id)
        .collect()
}

fn log(event: &Event) {
    let instance = event
        .instance
        .as_ref()
        .map(|name| name.as_str())
        .unwrap_or_default();
    match event.kind {
        "instance-failed" | "boot-failed" | "notice" => {
            tracing::warn!(cluster = %event.cluster, instance, event = event.kind, detail = %event.message, "event");
        }
        _ => {
            tracing::info!(cluster = %event.cluster, instance, event = event.kind, detail = %event.message, "event")
        }
    }
}
