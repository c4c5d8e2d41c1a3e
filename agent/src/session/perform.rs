//! Does what a session decided, but for sending and closing. What takes long is done in the background and comes back to the
//! session as an input.

use aot_host::chain::Chain;
use aot_proto::builtin::Builtin;
use aot_proto::v1::{ClusterFacts, ClusterFactsApplied, Volumes, VolumesMounted};

use super::Session;
use super::agent::paths;
use super::protocol::{SessionInput, SessionOutput};
use crate::boot_id::boot_id;
use crate::config::Platform;
use crate::masters::kept;
use crate::node_facts::{self, Sources};
use crate::{cluster_facts, hostname, volumes};

impl<S> Session<'_, S> {
    /// Does what is neither sending nor closing.
    pub(super) fn perform(&mut self, output: SessionOutput) -> Option<SessionInput> {
        match output {
            SessionOutput::Send(_) | SessionOutput::Close(_) => None,
            SessionOutput::LearnMasters(named) => {
                self.learn_masters(&named);
                None
            }
            SessionOutput::LearnEpoch(epoch) => {
                self.learn_epoch(epoch);
                None
            }
            SessionOutput::NameHost(name) => {
                self.name_host(&name);
                None
            }
            SessionOutput::CollectFacts(main_user) => {
                self.collect_facts(main_user);
                None
            }
            SessionOutput::Apply(cluster, facts) => {
                self.apply(cluster, *facts);
                None
            }
            SessionOutput::Mount(volumes) => {
                self.mount(volumes);
                None
            }
            SessionOutput::Start(start) => {
                let result = self.agent.runner.start(&start);
                Some(SessionInput::Started(start.run_id, result))
            }
            SessionOutput::Cancel(run, grace_ms) => {
                self.agent.runner.cancel(run, grace_ms);
                None
            }
            SessionOutput::Forget(run) => {
                self.agent.runner.forget(run);
                None
            }
            SessionOutput::ReadFile(id, what) => {
                self.read_file(id, what);
                None
            }
            SessionOutput::OpenShell(open) => {
                self.agent.shells.open(*open);
                None
            }
            SessionOutput::OpenTunnel(open) => {
                self.agent.tunnels.open(*open);
                None
            }
            SessionOutput::MakeCsr => Some(SessionInput::Csr(self.make_csr())),
            SessionOutput::Install(pem) => self.install(&pem),
        }
    }

    /// One small write, where they are others than before.
    fn learn_masters(&self, named: &[String]) {
        let Some(new) = self.agent.link.order().learn(named) else {
            return;
        };
        tracing::info!(
            masters = new.join(","),
            "the master named where it is found"
        );
        kept::store(&self.agent.config.state_dir, &new);
    }

    /// One small write, before anything else that this master says is done.
    fn learn_epoch(&mut self, epoch: i64) {
        let Some(identity) = self.agent.identity.borrow().clone() else {
            return;
        };
        let state_dir = &self.agent.config.state_dir;
        self.agent.epoch.raise(state_dir, &identity.name, epoch);
    }

    /// A few small writes, before the facts that hold the name are collected.
    fn name_host(&self, name: &str) {
        let config = &self.agent.config;
        if config.provider != Platform::Ec2 {
            return;
        }
        match hostname::ensure(&config.etc_dir, name) {
            Ok(true) => tracing::info!(hostname = name, "named"),
            Ok(false) => {}
            Err(error) => tracing::warn!(hostname = name, error = %Chain(&error), "not named"),
        }
    }

    fn collect_facts(&self, main_user: String) {
        let config = &self.agent.config;
        let imds = (config.provider == Platform::Ec2).then(|| config.imds.clone());
        let sources = Sources {
            etc_dir: config.etc_dir.clone(),
            root_home: config.root_home.clone(),
            boot_id: boot_id(config.boot_id_file.as_deref()),
            main_user,
        };
        let report = self.report.clone();
        self.agent.tracker.spawn(async move {
            let cloud = match imds {
                None => None,
                Some(base) => node_facts::cloud(&base)
                    .await
                    .map_err(|error| tracing::warn!(error = %Chain(&error), "no facts from IMDS"))
                    .ok(),
            };
            if let Ok(facts) =
                tokio::task::spawn_blocking(move || node_facts::collect(&sources, cloud)).await
            {
                // The session may be over: the next one collects again.
                let _ = report
                    .send(SessionInput::FactsCollected(Box::new(facts)))
                    .await;
            }
        });
    }

    fn apply(&self, cluster: String, facts: ClusterFacts) {
        let (paths, report) = (paths(&self.agent.config), self.report.clone());
        let identity = self.agent.identity.borrow().clone();
        let instance = identity.map(|it| it.name.instance.to_string());
        let instance = instance.unwrap_or_default();
        let turn = self.agent.cluster_facts.clone();
        self.agent.tracker.spawn(async move {
            let turn = turn.lock_owned().await;
            if report.is_closed() {
                // The next session is given what this machine has not.
                return;
            }
            let generation = facts.generation;
            let work = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                cluster_facts::apply(&paths, &cluster, &instance, facts)
            });
            let (sha256, error) = match work.await {
                Ok(Ok(sha256)) => (sha256, String::new()),
                Ok(Err(error)) => (String::new(), Chain(&error).to_string()),
                Err(_) => {
                    let why = "putting them in place was interrupted";
                    (String::new(), why.to_owned())
                }
            };
            tracing::info!(generation, error, "cluster facts");
            let _ = report
                .send(SessionInput::Applied(ClusterFactsApplied {
                    generation,
                    sha256,
                    error,
                }))
                .await;
        });
    }

    fn mount(&self, volumes: Volumes) {
        let config = &self.agent.config;
        let paths = volumes::VolumePaths::new(&config.state_dir, &config.etc_dir);
        let (turn, report) = (self.agent.volumes.clone(), self.report.clone());
        self.agent.tracker.spawn(async move {
            let turn = turn.lock_owned().await;
            if report.is_closed() {
                // In the next session the master asks again for what it wants.
                return;
            }
            let id = volumes.id;
            let work = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                volumes::mount_all(&paths, &volumes.volumes)
            });
            let error = match work.await {
                Ok(Ok(())) => String::new(),
                Ok(Err(error)) => error,
                Err(_) => "putting volumes in place was interrupted".to_owned(),
            };
            let _ = report
                .send(SessionInput::Mounted(VolumesMounted { id, error }))
                .await;
        });
    }

    /// Reading a file may take as long as its file system likes.
    fn read_file(&self, id: u64, what: Builtin) {
        let (reads, report) = (self.agent.reads.clone(), self.report.clone());
        let etc = self.agent.config.etc_dir.clone();
        self.agent.tracker.spawn(async move {
            let reply = reads.answer(id, what, etc).await;
            // The session may be over: then the master answers whoever asked.
            let _ = report.send(SessionInput::FileRead(reply)).await;
        });
    }
}
