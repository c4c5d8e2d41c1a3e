//! From a journalled run to a shim that has it in hand: fetches and unpacks a stage's bundle, fetches a copy's archive.
//! Called by the runner, one task a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aot_proto::ids::{RunId, SpiffeId};
use aot_proto::limits::{DEFAULT_OUTPUT_CAP_BYTES, MAX_BUNDLE_BYTES, MAX_COPY_BYTES};
use tokio::sync::watch::error::RecvError;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::command::{Become, Command};
use super::fetched::Fetched;
use super::shim::CANCEL;
use super::shims::{Shims, never_ran};
use crate::bundle;
use crate::bundle::fetch::Wanted;
use crate::identity::Identity;
use crate::journal::{Spec, Work};
use crate::link::Link;
use crate::service::Chain;
use crate::users;

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a copy waits for the identity of an agent that has just started.
const ENROLLED: Duration = Duration::from_secs(600);

/// How a launch ended.
#[derive(Debug)]
pub enum Outcome {
    /// The shim has ended or is free for another command; the spool says more.
    ShimGone(RunId),
    /// There was nothing to run.
    NotStarted(RunId, String),
    /// It failed before there was anything to run.
    Failed(RunId, String),
    /// It was cancelled before a shim was started.
    Cancelled(RunId),
}

/// What every launch needs.
pub struct Launch {
    /// The agent's own folder.
    pub state_dir: PathBuf,
    /// `/etc`.
    pub etc_dir: PathBuf,
    /// Root's home.
    pub root_home: PathBuf,
    /// This boot.
    pub boot_id: String,
    /// To the master, for bundles.
    pub link: Link,
    /// The certificate of the day; `None` until enrolled.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// One bundle is fetched and unpacked at a time.
    pub bulk: Arc<Mutex<()>>,
    /// How far the fetches of copies are.
    pub fetched: Fetched,
    /// Shims that wait for another command.
    pub shims: Shims,
}

impl Launch {
    /// Starts the run that `dir` was made for and waits for its shim to end.
    pub async fn run(&self, spec: &Spec, dir: &Path, cancel: &CancellationToken) -> Outcome {
        let prepared = tokio::select! {
            prepared = self.prepare(spec, dir) => prepared,
            () = cancel.cancelled() => Err(String::new()),
        };
        self.fetched.done(spec.run_id);
        if cancel.is_cancelled() {
            return Outcome::Cancelled(spec.run_id);
        }
        let command = match prepared {
            Ok(command) => command,
            Err(detail) => {
                return match spec.what {
                    Work::CopyIn { .. } => Outcome::Failed(spec.run_id, detail),
                    _ => Outcome::NotStarted(spec.run_id, detail),
                };
            }
        };
        // From here on the shim heeds a cancellation.
        let again = matches!(spec.what, Work::Exec { .. });
        match self.shims.own(&command, spec.run_id, again).await {
            Ok(()) => Outcome::ShimGone(spec.run_id),
            Err(detail) => Outcome::NotStarted(spec.run_id, detail),
        }
    }

    async fn prepare(&self, spec: &Spec, dir: &Path) -> Result<Command, String> {
        let name = self
            .identity
            .borrow()
            .as_ref()
            .map(|identity| identity.name.clone());
        let (argv, cwd, env, become_user) = match &spec.what {
            Work::Exec { argv, cwd, user } => {
                let (env, become_user) = login(user, &self.etc_dir, &self.root_home)?;
                let cwd = if cwd.is_empty() { "/" } else { cwd };
                (argv.clone(), cwd.to_owned(), env, become_user)
            }
            Work::Stage {
                bundle_sha256,
                bundle_bytes,
                index,
                args,
                ..
            } => {
                let folder = self
                    .stage_folder(bundle_sha256, *bundle_bytes, *index)
                    .await?;
                let argv = ["bash", "bootstrap.sh"]
                    .into_iter()
                    .map(str::to_owned)
                    .chain(args.iter().cloned());
                (
                    argv.collect(),
                    folder.to_string_lossy().into_owned(),
                    login("", &self.etc_dir, &self.root_home)?.0,
                    None,
                )
            }
            Work::CopyIn { path, into, .. } => {
                let archive = self.archive(spec, dir).await?;
                let mut argv = own_program("unpack");
                argv.extend(into.then(|| "--into".to_owned()));
                argv.extend(["--".to_owned(), archive, path.clone()]);
                (
                    argv,
                    "/".to_owned(),
                    login("", &self.etc_dir, &self.root_home)?.0,
                    None,
                )
            }
            Work::CopyOut { paths } => {
                let mut argv = own_program("pack");
                argv.push("--".to_owned());
                argv.extend(paths.iter().cloned());
                (
                    argv,
                    "/".to_owned(),
                    login("", &self.etc_dir, &self.root_home)?.0,
                    None,
                )
            }
        };
        Ok(Command {
            dir: dir.to_owned(),
            run_id: spec.run_id.to_string(),
            boot_id: self.boot_id.clone(),
            argv,
            cwd,
            env: environment(env, spec, name.as_ref(), &self.etc_dir),
            become_user,
            timeout: Duration::from_millis(spec.timeout_ms),
            silence_timeout: Duration::from_millis(spec.silence_timeout_ms),
            output_cap_bytes: if spec.output_cap_bytes == 0 {
                DEFAULT_OUTPUT_CAP_BYTES
            } else {
                spec.output_cap_bytes
            },
        })
    }

    async fn stage_folder(&self, sha256: &str, bytes: u64, index: u32) -> Result<PathBuf, String> {
        let one = self.bulk.clone().lock_owned().await;
        let identity = self.identity.borrow().clone();
        let bundles = self.state_dir.join("bundles");
        let wanted = Wanted {
            sha256,
            bytes,
            limit: MAX_BUNDLE_BYTES,
        };
        let packed =
            bundle::fetch::obtain(&bundles, wanted, &self.link, identity.as_deref(), &|_| ())
                .await
                .map_err(|error| format!("cannot fetch bundle {sha256}: {}", Chain(&error)))?;
        let stages = self.state_dir.join("stages");
        let folder = stages.join(format!("stage-{index}"));
        let unpacking = tokio::task::spawn_blocking(move || {
            // It goes on when the run is cancelled meanwhile: until then nobody else may unpack there.
            let _one = one;
            bundle::unpack_stage(&packed, &folder)
        });
        match unpacking.await {
            Ok(Ok(folder)) => Ok(folder),
            Ok(Err(error)) => Err(format!("cannot unpack bundle {sha256}: {}", Chain(&error))),
            Err(_) => Err(format!("unpacking bundle {sha256} broke off")),
        }
    }
}

impl Launch {
    /// The archive of a copy, in the run's own folder: it goes when the run is forgotten at the latest.
    async fn archive(&self, spec: &Spec, dir: &Path) -> Result<String, String> {
        let Work::CopyIn { sha256, bytes, .. } = &spec.what else {
            return Err("there is nothing to fetch".to_owned());
        };
        // Just after a start of the agent it may not have its identity yet.
        let mut seen = self.identity.clone();
        let enrolled =
            async move { Ok::<_, RecvError>(seen.wait_for(Option::is_some).await?.clone()) };
        let Ok(Ok(identity)) = timeout(ENROLLED, enrolled).await else {
            return Err("this agent is not enrolled".to_owned());
        };
        let wanted = Wanted {
            sha256,
            bytes: *bytes,
            limit: MAX_COPY_BYTES,
        };
        let came = |at| self.fetched.note(spec.run_id, at, *bytes);
        let dir = dir.join("fetched");
        let fetching = bundle::fetch::obtain(&dir, wanted, &self.link, identity.as_deref(), &came);
        match fetching.await {
            Ok(path) => Ok(path.to_string_lossy().into_owned()),
            Err(error) => {
                // What came is of no use without the rest, and a full disk needs the room.
                let _ = std::fs::remove_dir_all(&dir);
                Err(format!("cannot fetch the files: {}", Chain(&error)))
            }
        }
    }
}

/// A command of this very program; the shim that runs it is the same one.
fn own_program(command: &str) -> Vec<String> {
    vec!["/proc/self/exe".to_owned(), command.to_owned()]
}

/// Whether a run that an earlier agent left can be taken up where it was: a copy whose files were still being fetched.
/// Nothing was started for it, and what came is on disk.
pub fn can_go_on(spec: &Spec, dir: &Path, boot_id: &str) -> bool {
    matches!(spec.what, Work::CopyIn { .. })
        && spec.boot_id == boot_id
        && !dir.join(CANCEL).exists()
        && never_ran(dir)
}

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
            return Err(format!("there is no user {user} on this machine"));
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
fn environment(
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
