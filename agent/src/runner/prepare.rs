//! From a journalled run to a shim that has it in hand: fetches and unpacks a stage's bundle, fetches a copy's archive.
//! Called by the runner, one task per run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_host::removal::remove_tree;
use aot_proto::ids::RunId;
use aot_proto::limits::{DEFAULT_OUTPUT_CAP_BYTES, MAX_BUNDLE_BYTES, MAX_COPY_BYTES};
use tokio::sync::watch::error::RecvError;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::cancellation;
use super::command::{Become, CommandSpec};
use super::copy_progress::Fetched;
use super::environment::{environment, login};
use super::given;
use super::journal::{RenderSpec, Spec, Work};
use super::shim_pool::{Shims, never_ran};
use crate::aws::SecretFetcher;
use crate::bundle::fetch::WantedBundle;
use crate::bundle::{self, Rendered, TemplateValues};
use crate::cluster_facts;
use crate::identity::ClientIdentity;
use crate::link::Link;
use crate::secrets::{RunSecrets, SecretFolders};

/// How long a copy waits for the identity of an agent that has just started.
const ENROLLED: Duration = Duration::from_secs(600);

/// How the start of a run ended.
#[derive(Debug)]
pub(crate) enum StartOutcome {
    /// The shim has ended or is free for another command; the spool says more.
    ShimGone(RunId),
    /// There was nothing to run.
    NotStarted(RunId, String),
    /// It failed before there was anything to run.
    Failed(RunId, String),
    /// It was cancelled before a shim was started.
    Cancelled(RunId),
    /// A stage whose templates have become what they had become before, with this digest: it is not run.
    Unchanged(RunId, String),
}

/// Why a run has no command.
enum Unprepared {
    /// For a person.
    Because(String),
    /// As [`StartOutcome::Unchanged`].
    Unchanged(String),
}

impl From<String> for Unprepared {
    fn from(detail: String) -> Self {
        Self::Because(detail)
    }
}

/// What is to be run, but for what every run has.
struct Program {
    argv: Vec<String>,
    cwd: String,
    env: BTreeMap<String, String>,
    become_user: Option<Become>,
    note: String,
    /// SHA-256 of what templates have become; empty without any.
    rendered: String,
}

/// Starts runs: what that needs of the agent.
pub(crate) struct Starter {
    /// The agent's own folder.
    pub state_dir: PathBuf,
    pub etc_dir: PathBuf,
    pub root_home: PathBuf,
    pub boot_id: String,
    /// To the master, for bundles.
    pub link: Link,
    /// The certificate of the day; `None` until enrolled.
    pub identity: watch::Receiver<Option<Arc<ClientIdentity>>>,
    /// One bundle is fetched and unpacked at a time.
    pub bulk: Arc<Mutex<()>>,
    /// How far the fetches of copies are.
    pub fetched: Fetched,
    /// Shims that wait for another command.
    pub shims: Shims,
    /// What runs are given in secret.
    pub secrets: SecretFolders,
    /// Reads those that come from AWS to this machine.
    pub aws: SecretFetcher,
}

impl Starter {
    /// Starts the run that `dir` was made for and waits for its shim to end.
    pub(crate) async fn run(
        &self,
        spec: &Spec,
        secrets: RunSecrets,
        dir: &Path,
        cancel: &CancellationToken,
    ) -> StartOutcome {
        let prepared = async {
            let command = self.prepare(spec, dir).await?;
            // Last: they are as new as can be, and not asked for where there is nothing to run.
            Ok((command, given::obtained(&self.aws, secrets).await?))
        };
        let prepared = tokio::select! {
            prepared = prepared => prepared,
            () = cancel.cancelled() => Err(Unprepared::Because(String::new())),
        };
        self.fetched.done(spec.run_id);
        if cancel.is_cancelled() {
            return StartOutcome::Cancelled(spec.run_id);
        }
        let (mut command, secrets) = match prepared {
            Ok(prepared) => prepared,
            Err(Unprepared::Unchanged(digest)) => {
                return StartOutcome::Unchanged(spec.run_id, digest);
            }
            Err(Unprepared::Because(detail)) => {
                return match spec.what {
                    Work::CopyIn { .. } => StartOutcome::Failed(spec.run_id, detail),
                    _ => StartOutcome::NotStarted(spec.run_id, detail),
                };
            }
        };
        if let Err(detail) = given::give(&self.secrets, &mut command, spec.run_id, &secrets) {
            return StartOutcome::NotStarted(spec.run_id, detail);
        }
        // From here on the shim heeds a cancellation.
        let reusable = matches!(spec.what, Work::Exec { .. });
        match self.shims.run(&command, spec.run_id, reusable).await {
            Ok(()) => StartOutcome::ShimGone(spec.run_id),
            Err(detail) => {
                self.secrets.remove(spec.run_id);
                StartOutcome::NotStarted(spec.run_id, detail)
            }
        }
    }

    async fn prepare(&self, spec: &Spec, dir: &Path) -> Result<CommandSpec, Unprepared> {
        let name = self.identity.borrow().as_ref().map(|it| it.name.clone());
        let program = self.program(spec, dir).await?;
        Ok(CommandSpec {
            dir: dir.to_owned(),
            run_id: spec.run_id.to_string(),
            boot_id: self.boot_id.clone(),
            argv: program.argv,
            cwd: program.cwd,
            env: environment(program.env, spec, name.as_ref(), &self.etc_dir),
            become_user: program.become_user,
            note: program.note,
            rendered: program.rendered,
            secrets: None,
            timeout: Duration::from_millis(spec.timeout_ms),
            silence_timeout: Duration::from_millis(spec.silence_timeout_ms),
            output_cap_bytes: if spec.output_cap_bytes == 0 {
                DEFAULT_OUTPUT_CAP_BYTES
            } else {
                spec.output_cap_bytes
            },
        })
    }

    async fn program(&self, spec: &Spec, dir: &Path) -> Result<Program, Unprepared> {
        match &spec.what {
            Work::Exec { argv, cwd, user } => {
                let (env, become_user) = login(user, &self.etc_dir, &self.root_home)?;
                let cwd = if cwd.is_empty() { "/" } else { cwd };
                Ok(Program {
                    argv: argv.clone(),
                    cwd: cwd.to_owned(),
                    env,
                    become_user,
                    note: String::new(),
                    rendered: String::new(),
                })
            }
            Work::Stage {
                bundle_sha256,
                bundle_bytes,
                index,
                args,
                render,
                ..
            } => {
                let render = render.as_ref();
                let rendered = self.stage_folder(bundle_sha256, *bundle_bytes, *index, render);
                let unpacked = match rendered.await? {
                    Rendered::Ready(unpacked) => unpacked,
                    Rendered::Unchanged(digest) => return Err(Unprepared::Unchanged(digest)),
                };
                let folder = unpacked.script_folder;
                let argv = ["bash", "bootstrap.sh"].into_iter().map(str::to_owned);
                Ok(Program {
                    cwd: folder.to_string_lossy().into_owned(),
                    note: preamble(unpacked.note, &folder),
                    rendered: unpacked.rendered,
                    ..self.as_root(argv.chain(args.iter().cloned()).collect())?
                })
            }
            Work::CopyIn {
                path, into, names, ..
            } => {
                let archive = self.archive(spec, dir).await?;
                let mut argv = own_program("unpack");
                argv.extend(into.then(|| "--into".to_owned()));
                argv.extend(names.iter().map(|name| format!("--only={name}")));
                argv.extend(["--".to_owned(), archive, path.clone()]);
                Ok(self.as_root(argv)?)
            }
            Work::CopyOut { paths } => {
                let mut argv = own_program("pack");
                argv.push("--".to_owned());
                argv.extend(paths.iter().cloned());
                Ok(self.as_root(argv)?)
            }
        }
    }

    /// A program of root's, in `/`.
    fn as_root(&self, argv: Vec<String>) -> Result<Program, String> {
        Ok(Program {
            argv,
            cwd: "/".to_owned(),
            env: login("", &self.etc_dir, &self.root_home)?.0,
            become_user: None,
            note: String::new(),
            rendered: String::new(),
        })
    }

    /// What templates see on this machine now.
    fn template_values(&self, render: &RenderSpec) -> Result<TemplateValues, String> {
        let identity = self.identity.borrow();
        let name = identity.as_ref().map(|it| it.name.instance.to_string());
        let vars = match render.vars_json.as_str() {
            "" => Ok(serde_json::json!({})),
            text => serde_json::from_str(text),
        };
        let facts = cluster_facts::last_applied(&self.state_dir).unwrap_or_default();
        let cluster = serde_json::from_slice(&facts.json());
        Ok(TemplateValues {
            instance: name.ok_or("this agent is not enrolled")?,
            vars: vars.map_err(|error| format!("cannot read the variables: {error}"))?,
            cluster: cluster.map_err(|error| format!("cannot read the cluster facts: {error}"))?,
        })
    }

    async fn stage_folder(
        &self,
        sha256: &str,
        bytes: u64,
        index: u32,
        render: Option<&RenderSpec>,
    ) -> Result<Rendered, String> {
        let unless = render
            .map(|render| render.unless.clone())
            .unwrap_or_default();
        let values = render
            .map(|render| self.template_values(render))
            .transpose()?;
        let one = self.bulk.clone().lock_owned().await;
        let identity = self.identity.borrow().clone();
        let bundles = self.state_dir.join("bundles");
        let wanted = WantedBundle {
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
            // It continues when the run is cancelled meanwhile: until then nobody else may unpack there.
            let _one = one;
            match values {
                Some(values) => bundle::render_stage(&packed, &folder, &values, &unless),
                None => bundle::unpack_stage(&packed, &folder).map(Rendered::Ready),
            }
        });
        match unpacking.await {
            Ok(Ok(rendered)) => Ok(rendered),
            Ok(Err(error @ bundle::Error::Template(_))) => Err(Chain(&error).to_string()),
            Ok(Err(error)) => Err(format!("cannot unpack bundle {sha256}: {}", Chain(&error))),
            Err(_) => Err(format!("unpacking bundle {sha256} was interrupted")),
        }
    }

    /// The archive of a copy, in the run's own folder: it goes when the run is forgotten at the latest.
    async fn archive(&self, spec: &Spec, dir: &Path) -> Result<String, String> {
        let Work::CopyIn { sha256, bytes, .. } = &spec.what else {
            return Err("nothing to fetch".to_owned());
        };
        // Just after a start of the agent it may not have its identity yet.
        let mut seen = self.identity.clone();
        let enrolled =
            async move { Ok::<_, RecvError>(seen.wait_for(Option::is_some).await?.clone()) };
        let Ok(Ok(identity)) = timeout(ENROLLED, enrolled).await else {
            return Err("this agent is not enrolled".to_owned());
        };
        let wanted = WantedBundle {
            sha256,
            bytes: *bytes,
            limit: MAX_COPY_BYTES,
        };
        let came = |at| self.fetched.record(spec.run_id, at, *bytes);
        let dir = dir.join("fetched");
        let fetching = bundle::fetch::obtain(&dir, wanted, &self.link, identity.as_deref(), &came);
        match fetching.await {
            Ok(path) => Ok(path.to_string_lossy().into_owned()),
            Err(error) => {
                // What came is of no use without the rest, and a full disk needs the room.
                let _ = remove_tree(&dir);
                Err(format!("cannot fetch the files: {}", Chain(&error)))
            }
        }
    }
}

/// What a stage's output begins with when something about its folder is to be known.
fn preamble(old: String, folder: &Path) -> String {
    let mut notes: Vec<String> = (!old.is_empty()).then_some(old).into_iter().collect();
    let noexec = rustix::fs::statvfs(folder)
        .is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC));
    if noexec {
        notes.push(format!(
            "{} is mounted noexec: programs in it can only be run by their interpreter (bash ./x), not by their path",
            folder.display()
        ));
    }
    let line = |note: &String| format!("aot: {note}\n");
    notes.iter().map(line).collect()
}

/// A command of this very program; the shim that runs it is the same one.
fn own_program(command: &str) -> Vec<String> {
    vec!["/proc/self/exe".to_owned(), command.to_owned()]
}

/// Whether a run that an earlier agent left can be taken up where it was: a copy whose files were still being fetched.
/// Nothing was started for it, and what came is on disk.
pub(crate) fn can_resume(spec: &Spec, dir: &Path, boot_id: &str) -> bool {
    matches!(spec.what, Work::CopyIn { .. })
        && spec.boot_id == boot_id
        && !cancellation::is_requested(dir)
        && never_ran(dir)
}
