//! Opens the secrets of a run for its agent, on their way into its session. A run that can't be given them is refused in the
//! agent's place.

use aot_model::key::InstanceKey;
use aot_model::secret::WantedSecret;
use aot_model::world::{AgentInput, Input};
use aot_proto::ids::{ClusterName, RunId};
use aot_proto::v1::{self, SecretValue, master_message};
use aot_proto::version::SECRETS;

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
        let opened = knows_secrets(protocol).and_then(|()| {
            let vault = SecretVault::new(&self.parts.join_key);
            opened(&vault, &at.cluster, secrets)
        });
        match opened {
            Ok(secrets) => {
                start.secrets = secrets;
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

/// Whether an agent that speaks this version gives them to what it starts.
fn knows_secrets(protocol: u32) -> Result<(), String> {
    match protocol >= SECRETS {
        true => Ok(()),
        false => Err(format!(
            "its agent speaks version {protocol} of the protocol and knows no secrets: update the agent, see docs/upgrade-uninstall.md"
        )),
    }
}

fn opened(
    vault: &SecretVault,
    cluster: &ClusterName,
    secrets: Vec<WantedSecret>,
) -> Result<Vec<SecretValue>, String> {
    let open = |WantedSecret { given, sealed }| {
        let name = given.name;
        let Some(sealed) = sealed else {
            return Err(format!("cluster {cluster} has no secret {name:?} any more"));
        };
        match vault.open(cluster, &name, &sealed) {
            Some(value) => Ok(SecretValue {
                name,
                value,
                env: given.env.unwrap_or_default(),
            }),
            None => Err(format!(
                "the secret {name:?} was sealed by a master with another join.key: launch the file again"
            )),
        }
    };
    secrets.into_iter().map(open).collect()
}

#[cfg(test)]
mod tests {
    use aot_model::hash::JoinKey;
    use aot_model::secret::SecretUse;

    use super::*;

    #[test]
    fn what_is_sealed_for_the_cluster_is_opened_and_all_else_is_refused_by_name() {
        let cluster: ClusterName = "c".parse().expect("a name");
        let vault = SecretVault::new(&JoinKey::new(&[7; 32]));
        let wanted = |sealed| WantedSecret {
            given: SecretUse {
                name: "db".to_owned(),
                env: Some("DB".to_owned()),
            },
            sealed,
        };
        let sealed = vault.seal(&cluster, "db", b"hunter2");
        let given = opened(&vault, &cluster, vec![wanted(Some(sealed.clone()))]);
        let given = given.expect("opens");
        assert_eq!((&*given[0].value, &*given[0].env), (&b"hunter2"[..], "DB"));
        let gone = opened(&vault, &cluster, vec![wanted(None)]).expect_err("is gone");
        assert!(gone.contains("no secret \"db\" any more"), "{gone}");
        let other = SecretVault::new(&JoinKey::new(&[8; 32]));
        let refused = opened(&other, &cluster, vec![wanted(Some(sealed))]);
        let refused = refused.expect_err("another key");
        assert!(refused.contains("another join.key"), "{refused}");
    }

    #[test]
    fn agents_that_know_none_are_told_apart() {
        assert_eq!(knows_secrets(SECRETS), Ok(()));
        let why = knows_secrets(SECRETS - 1).expect_err("it is older");
        assert!(why.contains("update the agent"), "{why}");
    }
}
