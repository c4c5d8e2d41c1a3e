//! What a run or a terminal has in its environment: a login's variables, aot's own, those of the job. Used by `prepare` and
//! by terminals.

use std::collections::BTreeMap;
use std::path::Path;

use aot_proto::ids::SpiffeId;

use super::command::Become;
use super::journal::{Spec, Work};
use crate::users;

/// Where programs are searched for, unless a job's own variables say otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin";

/// Environment of a login as `user` (empty = root), and whom to become for it.
///
/// # Errors
/// A line for a person, when there is no such user.
pub(crate) fn login(
    user: &str,
    etc_dir: &Path,
    root_home: &Path,
) -> Result<(BTreeMap<String, String>, Option<Become>), String> {
    let named = (!user.is_empty()).then_some(user);
    let found = named.and_then(|name| users::find(name, etc_dir));
    let (home, shell, become_user) = match found {
        Some(found) if found.uid != rustix::process::geteuid().as_raw() => {
            let to = Become {
                uid: found.uid,
                gid: found.gid,
                groups: found.groups,
            };
            (
                found.home.to_string_lossy().into_owned(),
                found.shell,
                Some(to),
            )
        }
        Some(found) if user != "root" => {
            (found.home.to_string_lossy().into_owned(), found.shell, None)
        }
        None if !user.is_empty() && user != "root" => {
            return Err(format!("no user {user} on this machine"));
        }
        _ => (
            root_home.to_string_lossy().into_owned(),
            "/bin/bash".to_owned(),
            None,
        ),
    };
    let name = if user.is_empty() { "root" } else { user };
    let pairs = [
        ("PATH", PATH),
        ("HOME", &home),
        ("SHELL", &shell),
        ("USER", name),
        ("LOGNAME", name),
        ("LANG", "C.UTF-8"),
    ];
    Ok((
        pairs
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        become_user,
    ))
}

/// What the run sees: a login's variables, aot's own, then those of the job.
pub(crate) fn environment(
    mut env: BTreeMap<String, String>,
    spec: &Spec,
    name: Option<&SpiffeId>,
    etc: &Path,
) -> BTreeMap<String, String> {
    own_variables(&mut env, name, etc);
    let mut set = |key: &str, value: String| {
        env.insert(key.to_owned(), value);
    };
    if let Work::Stage {
        index,
        attempt,
        reboots,
        ..
    } = &spec.what
    {
        set("AOT_STAGE", index.to_string());
        set("AOT_ATTEMPT", attempt.to_string());
        set("AOT_REBOOTS", reboots.to_string());
    }
    env.extend(spec.env.clone());
    env
}

/// aot's own variables, that runs and terminals see.
pub(crate) fn own_variables(
    env: &mut BTreeMap<String, String>,
    name: Option<&SpiffeId>,
    etc: &Path,
) {
    let mut set = |key: &str, value: String| {
        env.insert(key.to_owned(), value);
    };
    if let Some(name) = name {
        set("AOT_CLUSTER", name.cluster.to_string());
        set("AOT_INSTANCE", name.instance.to_string());
    }
    set(
        "AOT_CLUSTER_FACTS",
        etc.join("cluster_facts.json")
            .to_string_lossy()
            .into_owned(),
    );
}
