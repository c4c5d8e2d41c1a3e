//! What the agents of the tests do: they enrol, attach, keep journals, and end their runs.

use aot_proto::facts::{Joiner, Pieces};

use super::*;
use crate::run::RunKind;

/// An agent: its machine, its session, and the runs in its journal.
#[derive(Default)]
pub(crate) struct Agent {
    pub session: Option<u64>,
    pub enrolled: bool,
    pub generation: u64,
    pub content: aot_proto::facts::Content,
    pub journal: BTreeMap<RunId, bool>,
    /// What the templates of a run's stage became, and whether that is why it was not run.
    pub rendered: BTreeMap<RunId, (String, bool)>,
}

/// What the templates of a stage become: of `vars:NAME` that variable, of `facts:` the names in the cluster facts.
fn rendered(agent: &Agent, stage: &v1::StageSpec) -> String {
    match stage.name.strip_prefix("vars:") {
        Some(name) => {
            let vars: serde_json::Value = serde_json::from_str(&stage.vars_json).expect("JSON");
            format!("{name}={}", vars[name])
        }
        None => agent
            .content
            .peers()
            .map(|peer| peer.name.as_str())
            .collect(),
    }
}

impl Sim {
    /// What an agent brings in a session.
    pub(crate) fn agent(&mut self, at: InstanceKey, session: u64, report: AgentInput) -> Answer {
        self.input(Input::Agent {
            at,
            session,
            report,
        })
    }

    /// What the agent that has this run brings about it, in its session.
    pub(crate) fn of_run(&mut self, run: RunId, report: AgentInput) -> Answer {
        let at = self.world.runs[&run].at.clone();
        let session = self.agents[&at].session.expect("is connected");
        self.agent(at, session, report)
    }

    /// Cluster facts, which an agent applies to those that it has, whatever it said of them in Hello.
    pub(crate) fn handed_out(&mut self, at: &InstanceKey, session: u64, facts: &Pieces) {
        let agent = self.agents.entry(at.clone()).or_default();
        if agent.session != Some(session) {
            return;
        }
        self.given += 1;
        let mut joiner = Joiner::default();
        let joined = facts
            .iter()
            .map(|piece| joiner.step(piece).expect("follows"));
        let facts = joined.flatten().last().expect("it is whole");
        self.handed.push((at.clone(), facts.clone()));
        let generation = facts.generation;
        let error = if self.unwritable.contains(at.instance.as_str()) {
            "disk full".to_owned()
        } else {
            let applied = agent.content.clone().changed(facts);
            agent.content = applied.expect("the master knows what is here");
            agent.generation = generation;
            String::new()
        };
        self.agent(
            at.clone(),
            session,
            AgentInput::Applied { generation, error },
        );
    }

    pub(crate) fn receive(&mut self, at: &InstanceKey, session: u64, body: Body) {
        let agent = self.agents.entry(at.clone()).or_default();
        if agent.session != Some(session) {
            return;
        }
        match body {
            Body::Volumes(volumes) => {
                self.mounted.push((at.clone(), volumes.volumes));
                let error = self.no_volume.clone();
                let (at, id) = (at.clone(), volumes.id);
                self.agent(at, session, AgentInput::VolumesMounted { id, error });
            }
            Body::StartRun(start) => {
                let run: RunId = start.run_id.parse().expect("our own id");
                if agent.journal.contains_key(&run) {
                    return;
                }
                agent.journal.insert(run, false);
                let stage = match start.what {
                    Some(v1::start_run::What::RenderedStage(stage)) => {
                        let digest = rendered(agent, &stage);
                        let unchanged = digest == stage.unless_rendered;
                        agent.rendered.insert(run, (digest, unchanged));
                        (!unchanged).then_some(stage)
                    }
                    Some(v1::start_run::What::Stage(stage)) => Some(stage),
                    _ => None,
                };
                if let Some(stage) = stage {
                    *self.started.entry((at.clone(), stage.name)).or_default() += 1;
                }
                self.of_run(
                    run,
                    AgentInput::RunAnswer {
                        run,
                        accepted: true,
                        reason: String::new(),
                    },
                );
            }
            Body::ForgetRun(forget) => {
                agent
                    .journal
                    .insert(forget.run_id.parse().expect("our own id"), true);
            }
            _ => {}
        }
    }

    /// Every agent without a session comes (back), and every run ends.
    pub(crate) fn agents_move(&mut self) {
        self.agents_come();
        self.runs_end();
    }

    pub(crate) fn agents_come(&mut self) {
        let machines: Vec<(InstanceKey, Machine)> = self
            .world
            .clusters
            .values()
            .flat_map(|cluster| cluster.instances.values())
            .filter_map(|i| Some((key(i.name.as_str()), i.machine.clone()?)))
            .filter(|(_, machine)| machine.state == MachineState::Running)
            .collect();
        for (at, machine) in machines {
            if !self.silent.contains(at.instance.as_str()) {
                self.agent_comes(&at, &machine);
            }
        }
    }

    pub(crate) fn runs_end(&mut self) {
        let open: Vec<RunId> = self.world.runs.keys().copied().collect();
        for run in open {
            let at = self.world.runs[&run].at.clone();
            let agent = &self.agents.entry(at.clone()).or_default();
            if agent.session.is_some() && agent.journal.get(&run) == Some(&false) {
                let (rendered_sha256, unchanged) =
                    agent.rendered.get(&run).cloned().unwrap_or_default();
                let name = at.instance.as_str();
                let code = match self.world.runs[&run].what {
                    RunKind::Health { .. } => {
                        *self.checks.entry(name.to_owned()).or_default() += 1;
                        i32::from(self.unhealthy.contains(name))
                    }
                    _ => self.exit.get(name).copied().unwrap_or(0),
                };
                let ended = v1::Ended {
                    kind: EndKind::Exited as i32,
                    exit_code: if unchanged { 0 } else { code },
                    rendered_sha256,
                    unchanged,
                    ..v1::Ended::default()
                };
                self.of_run(
                    run,
                    AgentInput::RunEnded {
                        run,
                        ended: Box::new(ended),
                    },
                );
            }
        }
    }

    pub(crate) fn agent_comes(&mut self, at: &InstanceKey, machine: &Machine) {
        if self.agents.entry(at.clone()).or_default().session.is_some() {
            return;
        }
        if !self.agents[at].enrolled {
            let token = machine.client_token.as_ref().expect("the sim sets it");
            let secret = JoinKey::new(b"key").token(&token.0);
            let answer = self.input(Input::Enrol(EnrolAsk {
                token_sha256: sha256_hex(secret.as_bytes()),
                machine: machine.id.clone(),
                key_sha256: format!("key of {}", machine.id),
                document: ShownDocument::Nothing,
                answer: Secret::default(),
            }));
            if !matches!(answer, Answer::Granted(_)) {
                return;
            }
            self.agents.get_mut(at).expect("made above").enrolled = true;
        }
        self.sessions += 1;
        let session = self.sessions;
        let agent = self.agents.get_mut(at).expect("made above");
        agent.session = Some(session);
        let runs = agent.journal.iter().filter(|(_, forgotten)| !**forgotten);
        let hello = v1::Hello {
            boot_id: "boot".to_owned(),
            cluster_facts_generation: agent.generation,
            runs: runs
                .map(|(id, _)| v1::RunState {
                    run_id: id.to_string(),
                    ..v1::RunState::default()
                })
                .collect(),
            ..v1::Hello::default()
        };
        self.agent(at.clone(), session, AgentInput::Attached(Box::new(hello)));
        let facts = NodeFacts {
            node: serde_json::json!({"hostname": at.instance.as_str()}).into(),
            ssh_host_keys: Vec::new(),
            root_public_key: format!("key of {}", at.instance),
            user_public_key: String::new(),
            main_user: String::new(),
        };
        self.agent(at.clone(), session, AgentInput::Facts(Box::new(facts)));
    }
}
