//! Opens the secrets of a run for its agent, on their way into its session; of those that its machine reads by itself it is told
//! where they are. A run that can't be given them is refused in the agent's place.

use aot_model::key::InstanceKey;
use aot_model::secret::{AwsSecret, KeptSecret, SecretUse, WantedSecret};
use aot_model::world::{AgentInput, Input};
use aot_proto::ids::{ClusterName, RunId};
use aot_proto::v1::{self, AwsService, MachineSecret, SecretValue, master_message};
use aot_proto::version::{MACHINE_SECRETS, SECRETS};

use crate::enrol::secret_vault::SecretVault;
use crate::run::decide::Loop;
use crate::session::registry::SessionCommand;

impl Loop {
    pub(super) fn start_with_secrets(
        &self,
        at: InstanceKey,
        session: u64,
        run: RunId,
        mut start: Box<v1::StartRun>,
        secrets: Vec<WantedSecret>,
    ) {
        // Without a session it is given again in the next one.
        let Some(protocol) = self.parts.registry.protocol(&at) else {
            return;
        };
        let opened = knows_secrets(protocol, &secrets).and_then(|()| {
            let vault = SecretVault::new(&self.parts.join_key);
            opened(&vault, &at.cluster, secrets)
        });
        match opened {
            Ok(opened) => {
                start.secrets = opened.values;
                start.machine_secrets = opened.on_machine;
                let body = master_message::Body::StartRun(*start);
                self.send(&at, session, SessionCommand::Send(Box::new(body)));
            }
            Err(reason) => {
                let engine = self.engine.clone();
                let report = AgentInput::RunAnswer {
                    run,
                    accepted: false,
                    reason,
                };
                self.spawn(async move {
                    let input = Input::Agent {
                        at,
                        session,
                        report,
                    };
                    engine.submit(input).await;
                });
            }
        }
    }
}

/// What an agent is sent of a run's secrets.
#[derive(Debug, Default)]
struct OpenedSecrets {
    values: Vec<SecretValue>,
    /// It reads these by itself.
    on_machine: Vec<MachineSecret>,
}

/// Whether an agent that speaks this version gives them to what it starts.
fn knows_secrets(protocol: u32, secrets: &[WantedSecret]) -> Result<(), String> {
    let is_on_machine = |it: &&WantedSecret| matches!(it.kept, Some(KeptSecret::OnMachine(..)));
    match secrets.iter().find(is_on_machine) {
        _ if protocol < SECRETS => Err(format!(
            "its agent speaks version {protocol} of the protocol and knows no secrets: update the agent, see docs/upgrade-uninstall.md"
        )),
        Some(it) if protocol < MACHINE_SECRETS => Err(format!(
            "its agent speaks version {protocol} of the protocol and can't read the secret {:?} by itself: update the agent, see docs/upgrade-uninstall.md",
            it.given.name
        )),
        _ => Ok(()),
    }
}

fn opened(
    vault: &SecretVault,
    cluster: &ClusterName,
    secrets: Vec<WantedSecret>,
) -> Result<OpenedSecrets, String> {
    let mut opened = OpenedSecrets::default();
    for WantedSecret { given, kept } in secrets {
        let name = given.name.clone();
        let sealed = match kept {
            None => return Err(format!("cluster {cluster} has no secret {name:?} any more")),
            Some(KeptSecret::OnMachine(service, at)) => {
                opened.on_machine.push(reference(given, service, at));
                continue;
            }
            Some(KeptSecret::Sealed(sealed)) => sealed,
        };
        let Some(value) = vault.open(cluster, &name, &sealed) else {
            return Err(format!(
                "the secret {name:?} was sealed by a master with another join.key: launch the file again"
            ));
        };
        opened.values.push(SecretValue {
            name,
            value,
            env: given.env.unwrap_or_default(),
        });
    }
    Ok(opened)
}

/// Where a machine finds one.
fn reference(given: SecretUse, service: AwsService, at: AwsSecret) -> MachineSecret {
    let region = at.said_region().unwrap_or_default().to_owned();
    MachineSecret {
        name: given.name,
        env: given.env.unwrap_or_default(),
        service: service.into(),
        id: at.id,
        version: at.version.unwrap_or_default(),
        region,
    }
}

#[cfg(test)]
mod tests {
    use aot_model::hash::JoinKey;

    use super::*;

    fn wanted(kept: Option<KeptSecret>) -> WantedSecret {
        WantedSecret {
            given: SecretUse {
                name: "db".to_owned(),
                env: Some("DB".to_owned()),
            },
            kept,
        }
    }

    fn on_machine(id: &str) -> Option<KeptSecret> {
        let at = AwsSecret {
            id: id.to_owned(),
            region: None,
            version: Some("3".to_owned()),
            on_machine: true,
        };
        Some(KeptSecret::OnMachine(AwsService::Ssm, at))
    }

    #[test]
    fn what_is_sealed_for_the_cluster_is_opened_and_all_else_is_refused_by_name() {
        let cluster: ClusterName = "c".parse().expect("a name");
        let vault = SecretVault::new(&JoinKey::new(&[7; 32]));
        let sealed = vault.seal(&cluster, "db", b"hunter2");
        let sealed = || Some(KeptSecret::Sealed(sealed.clone()));
        let given = opened(&vault, &cluster, vec![wanted(sealed())]);
        let given = given.expect("opens").values;
        assert_eq!((&*given[0].value, &*given[0].env), (&b"hunter2"[..], "DB"));
        let gone = opened(&vault, &cluster, vec![wanted(None)]).expect_err("is gone");
        assert!(gone.contains("no secret \"db\" any more"), "{gone}");
        let other = SecretVault::new(&JoinKey::new(&[8; 32]));
        let refused = opened(&other, &cluster, vec![wanted(sealed())]);
        let refused = refused.expect_err("another key");
        assert!(refused.contains("another join.key"), "{refused}");
    }

    #[test]
    fn of_what_its_machine_reads_an_agent_is_told_where_it_is() {
        let cluster: ClusterName = "c".parse().expect("a name");
        let vault = SecretVault::new(&JoinKey::new(&[7; 32]));
        for (id, region) in [
            ("/prod/db", ""),
            ("arn:aws:ssm:eu-west-1:1:parameter/db", "eu-west-1"),
        ] {
            let given = opened(&vault, &cluster, vec![wanted(on_machine(id))]);
            let given = given.expect("is told");
            let want = MachineSecret {
                name: "db".to_owned(),
                env: "DB".to_owned(),
                service: AwsService::Ssm.into(),
                id: id.to_owned(),
                version: "3".to_owned(),
                region: region.to_owned(),
            };
            assert_eq!((given.values.len(), given.on_machine), (0, vec![want]));
        }
    }

    #[test]
    fn agents_that_know_none_are_told_apart() {
        let value = KeptSecret::Sealed(aot_model::secret::SealedSecret {
            version: String::new(),
            sealed: String::new(),
        });
        let value = [wanted(Some(value))];
        let reads = [wanted(on_machine("/prod/db"))];
        assert_eq!(knows_secrets(SECRETS, &value), Ok(()));
        assert_eq!(knows_secrets(MACHINE_SECRETS, &reads), Ok(()));
        for (protocol, secrets, said) in [
            (SECRETS - 1, &value, "knows no secrets"),
            (SECRETS - 1, &reads, "knows no secrets"),
            (
                MACHINE_SECRETS - 1,
                &reads,
                "can't read the secret \"db\" by itself",
            ),
        ] {
            let why = knows_secrets(protocol, secrets).expect_err(said);
            assert!(
                why.contains(said) && why.contains("update the agent"),
                "{why}"
            );
        }
    }
}
