//! `plan`, and what `launch` and `apply` ask before they change much.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aot_archive::Digest;
use aot_host::environment;
use aot_proto::plural;
use aot_proto::v1::{
    ApplyRequest, PlanAction, PlanLine, PlanReply, PlanRequest, SecretValue, Variables,
};

use super::args::{PlanArgs, VariableArgs};
use super::confirm::{confirm, named};
use super::connect::{Start, connect};
use super::dial::{ASK_PROVIDER, Client, within};
use super::error::{Error, Exit, exit_of};
use super::secrets::{read_all, variable_of_process};
use super::variables::given_beside;
use super::{CLUSTER_FILE, Ctx};
use crate::view::{plan_json, plan_lines, plan_summary, plan_versions, problem_lines};

/// After so long of waiting for a plan, whoever waits is told for what.
const SILENCE: Duration = Duration::from_secs(2);

/// A cluster's file as it is sent: its absolute path and its text.
fn read(file: &Path) -> Result<(String, String), Error> {
    let fail = |source| Error::Read {
        path: file.to_owned(),
        source,
    };
    let path = std::path::absolute(file).map_err(fail)?;
    let bytes = std::fs::read(&path).map_err(fail)?;
    let text = String::from_utf8(bytes).map_err(|_| {
        fail(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "it is not UTF-8",
        ))
    })?;
    let path = path.into_os_string().into_string().map_err(|path| {
        Error::usage(
            format!("the path {} is not UTF-8", PathBuf::from(path).display()),
            "rename it",
        )
    })?;
    Ok((path, text))
}

/// A file with all that goes with it to the master.
pub(crate) struct SentFile {
    pub path: String,
    pub text: String,
    pub variables: Variables,
    /// Values of those that are read here.
    pub secrets: Vec<SecretValue>,
}

impl SentFile {
    /// Reads the file, and the secrets that it has read here.
    ///
    /// # Errors
    /// When one of them can't be read, or a variable is missing.
    pub(crate) async fn read(
        ctx: &Ctx<'_>,
        file: &Path,
        args: &VariableArgs,
    ) -> Result<Self, Error> {
        let (path, text) = read(file)?;
        let variables = given_beside(args, &text, environment::text)?;
        let wanted = (ctx.env.secrets)(&text, Path::new(&path), &variables);
        let secrets = read_all(wanted, variable_of_process).await?;
        Ok(Self {
            path,
            text,
            variables,
            secrets,
        })
    }

    /// The file whose variables are given to an apply, or to its plan; `None` when none are.
    ///
    /// # Errors
    /// As [`SentFile::read`], and when a file is named without any variables.
    pub(crate) async fn of_apply(
        ctx: &Ctx<'_>,
        file: Option<&Path>,
        args: &VariableArgs,
    ) -> Result<Option<Self>, Error> {
        match (args.is_said(), file) {
            (false, None) => Ok(None),
            (false, Some(_)) => Err(Error::usage(
                "--file is for --set and --vars".to_owned(),
                "leave it out, or launch the file: without them what was launched last is applied as it is",
            )),
            (true, file) => {
                let path = file.unwrap_or(Path::new(CLUSTER_FILE));
                if file.is_none() && !path.exists() {
                    return Err(Error::usage(
                        format!(
                            "--set and --vars need the cluster's file, and there is no {CLUSTER_FILE} here"
                        ),
                        "name it with --file FILE: its values are put in their places anew",
                    ));
                }
                Self::read(ctx, path, args).await.map(Some)
            }
        }
    }

    /// Asks what a launch of it would do.
    pub(crate) fn planned(&self) -> PlanRequest {
        PlanRequest {
            path: self.path.clone(),
            text: self.text.clone(),
            aws_settings: aws_settings(std::env::vars_os()),
            variables: Some(self.variables.clone()),
            secrets: self.secrets.clone(),
            ..PlanRequest::default()
        }
    }
}

/// Asks for the plan, and says what to know before it.
pub(crate) async fn ask_plan(
    ctx: &mut Ctx<'_>,
    client: &mut Client,
    request: PlanRequest,
) -> Result<PlanReply, Error> {
    let plan = {
        let asked = client.plan(within(ASK_PROVIDER, request));
        tokio::pin!(asked);
        tokio::select! {
            plan = &mut asked => plan,
            () = tokio::time::sleep(SILENCE) => {
                ctx.note("still asking the provider (-v shows its calls)")?;
                asked.await
            }
        }
    };
    let plan = plan?.into_inner();
    ctx.compare_build_of(client, &plan.build, plan.background)
        .await?;
    for notice in &plan.notices {
        ctx.message(&format!("warning: {notice}"))?;
    }
    Ok(plan)
}

/// The settings of the AWS SDK in this shell: each name, and a digest of its value. The master compares them with its
/// own: one that was started in the background has those of the shell that started it.
fn aws_settings(vars: impl Iterator<Item = (OsString, OsString)>) -> HashMap<String, String> {
    let named = vars.filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        if !name.starts_with("AWS_") || value.is_empty() {
            return None;
        }
        let mut digest = Digest::default();
        digest.update(value.as_encoded_bytes());
        Some((name, digest.hex()))
    });
    named.collect()
}

/// `aot-master plan FILE`, and `aot-master plan TARGET`.
///
/// # Errors
/// When the file or the master can't be read or asked.
pub(crate) async fn plan(ctx: &mut Ctx<'_>, args: &PlanArgs) -> Result<Exit, Error> {
    let (mut client, request) = match args.is_target() {
        true => {
            let request = of_target(ctx, args).await?;
            (connect(ctx, Start::WithState).await?, request)
        }
        false if args.of.is_some() => {
            return Err(Error::usage(
                format!("two files: {:?}, and the one of --file", args.file),
                "give one of them: --file goes with a TARGET",
            ));
        }
        false => {
            let file = SentFile::read(ctx, Path::new(&args.file), &args.variables).await?;
            let request = PlanRequest {
                prune: args.prune,
                ..file.planned()
            };
            (connect(ctx, Start::Always).await?, request)
        }
    };
    let plan = ask_plan(ctx, &mut client, request).await?;
    if ctx.json {
        for line in plan_json(&plan) {
            ctx.print(&line.to_string())?;
        }
    } else {
        ctx.print(&plan_lines(&plan, ctx.style()))?;
        for line in plan_versions(&plan.lines) {
            ctx.print(&line)?;
        }
        ctx.note(&plan_summary(&plan))?;
        if !plan.problems.is_empty() {
            ctx.print(&problem_lines(&plan.problems, 0, ctx.style()))?;
        }
    }
    Ok(match plan.problems.is_empty() {
        true => Exit::Well,
        false => exit_of(&plan.problems),
    })
}

/// What an apply to these would do.
async fn of_target(ctx: &Ctx<'_>, args: &PlanArgs) -> Result<PlanRequest, Error> {
    if args.prune {
        return Err(Error::usage(
            format!("{:?} is not a file, and --prune is for a file", args.file),
            "leave it out: an apply terminates nothing",
        ));
    }
    let file = SentFile::of_apply(ctx, args.of.as_deref(), &args.variables).await?;
    let apply = ApplyRequest {
        cluster: ctx.cluster.clone(),
        target: Some(args.file.clone()),
        ..ApplyRequest::default()
    };
    Ok(plan_of_apply(apply, file.as_ref()))
}

/// Asks what an apply would do, of this file or of what was launched.
pub(crate) fn plan_of_apply(apply: ApplyRequest, file: Option<&SentFile>) -> PlanRequest {
    PlanRequest {
        apply: Some(apply),
        ..file.map(SentFile::planned).unwrap_or_default()
    }
}

/// Asks before another file takes over a cluster whose instances it does not name: two files with one cluster's name
/// are more often a slip than a wish.
pub(crate) fn ask_whose(ctx: &mut Ctx<'_>, plan: &PlanReply, yes: bool) -> Result<(), Error> {
    if plan.other_file.is_empty() || yes {
        return Ok(());
    }
    let left_out: Vec<&str> = plan
        .lines
        .iter()
        .filter(|line| matches!(line.action(), PlanAction::Orphan | PlanAction::Terminate))
        .map(|line| line.instance.as_str())
        .collect();
    let question = format!(
        "this cluster was launched from {}, and this file leaves out {} of it ({}): launch it from this one",
        plan.other_file,
        plural::count(left_out.len(), "instance"),
        named(&left_out)
    );
    confirm(ctx, yes, &question)
}

/// Asks before instances that there are go away.
pub(crate) fn ask_about(ctx: &mut Ctx<'_>, lines: &[PlanLine], yes: bool) -> Result<(), Error> {
    let doomed: Vec<&PlanLine> = lines
        .iter()
        .filter(|line| matches!(line.action(), PlanAction::Terminate | PlanAction::Replace))
        .collect();
    if doomed.is_empty() || yes {
        return Ok(());
    }
    for line in &doomed {
        ctx.message(&format!(
            "  {} {}: {}",
            line.action(),
            line.instance,
            line.detail
        ))?;
    }
    let names: Vec<&str> = doomed.iter().map(|line| line.instance.as_str()).collect();
    confirm(
        ctx,
        yes,
        &format!(
            "terminate or replace {}: {}",
            plural::count(doomed.len(), "instance"),
            named(&names)
        ),
    )
}

/// Asks before many that are ready are changed at once, of which nobody has said how. Without a terminal they are.
pub(crate) fn ask_at_once(ctx: &mut Ctx<'_>, lines: &[PlanLine], said: bool) -> Result<(), Error> {
    match at_once(lines).filter(|_| !said && ctx.env.interactive) {
        Some(question) => confirm(ctx, said, &question),
        None => Ok(()),
    }
}

/// ``rerun `base` on 20 instances at once``; `None` where that is one at most.
fn at_once(lines: &[PlanLine]) -> Option<String> {
    let lines: Vec<&PlanLine> = lines.iter().filter(|line| line.at_once).collect();
    let stages: BTreeSet<&str> = lines.iter().map(|line| &*line.stage).collect();
    let stages: Vec<String> = stages.iter().map(|stage| format!("`{stage}`")).collect();
    let stages: Vec<&str> = stages.iter().map(String::as_str).collect();
    (lines.len() > 1).then(|| {
        let instances = plural::count(lines.len(), "instance");
        format!("rerun {} on {instances} at once", named(&stages))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_many_at_once_are_asked_about() {
        let line = |stage: &str, at_once| PlanLine {
            stage: stage.to_owned(),
            at_once,
            ..PlanLine::default()
        };
        let table: [(&[PlanLine], Option<&str>); 4] = [
            (&[], None),
            (&[line("base", true), line("base", false)], None),
            (
                &[line("base", true), line("base", true), line("", false)],
                Some("rerun `base` on 2 instances at once"),
            ),
            (
                &[line("base", true), line("app", true)],
                Some("rerun `app`, `base` on 2 instances at once"),
            ),
        ];
        for (lines, question) in table {
            assert_eq!(at_once(lines).as_deref(), question);
        }
    }
}
