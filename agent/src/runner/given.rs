//! What a run is given in secret: as files in memory, as variables, and as what its shim hides.

use aot_proto::ids::RunId;
use aot_proto::v1::SecretValue;

use super::command::{CommandSpec, GivenSecrets};
use super::mask::HiddenSecret;
use crate::aws::SecretFetcher;
use crate::secrets::{self, RunSecrets, SecretFolders};

/// All values: those that this machine reads by itself are read now. Cancel safe.
///
/// # Errors
/// A line for a person, when one can't be had.
pub(super) async fn obtained(
    aws: &SecretFetcher,
    secrets: RunSecrets,
) -> Result<Vec<SecretValue>, String> {
    let RunSecrets {
        mut values,
        on_machine,
    } = secrets;
    if !on_machine.is_empty() {
        values.extend(aws.fetch(&on_machine).await?);
        secrets::check_all(&values)?;
    }
    Ok(values)
}

/// Adds to a command what it is given in secret. The shim is told over its socket, and hides it in what is printed.
///
/// # Errors
/// A line for a person, when there is no memory for them.
pub(super) fn give(
    folders: &SecretFolders,
    command: &mut CommandSpec,
    run: RunId,
    secrets: &[SecretValue],
) -> Result<(), String> {
    if secrets.is_empty() {
        return Ok(());
    }
    let owner = command.become_user.as_ref().map(|to| (to.uid, to.gid));
    let folder = folders.write(run, owner, secrets)?;
    let path = folder.to_string_lossy().into_owned();
    command.env.insert(secrets::VARIABLE.to_owned(), path);
    for secret in secrets.iter().filter(|it| !it.env.is_empty()) {
        let value = String::from_utf8_lossy(&secret.value).into_owned();
        command.env.insert(secret.env.clone(), value);
    }
    let hidden = |secret: &SecretValue| HiddenSecret {
        name: secret.name.clone(),
        value: secret.value.clone(),
    };
    command.secrets = Some(GivenSecrets {
        folder,
        hidden: secrets.iter().map(hidden).collect(),
    });
    Ok(())
}
