//! `exec`: runs a command on many instances, or asks their agents.

use std::io::Read;
use std::path::Path;

use aot_proto::v1::{BuiltinName, ExecRequest, Pace};

use super::Ctx;
use super::args::{ExecAction, ExecArgs};
use super::connect::{Start, connect};
use super::dial::millis;
use super::error::{Error, Exit};
use super::follow_job::{begin_and_follow, close};
use super::interrupt::Interrupt;
use super::job_source::{JobAsk, JobSource};
use super::output_mode::OutputMode;
use super::star;

/// Largest input of a command; it goes in one message to every target.
const MAX_STDIN_BYTES: u64 = 1 << 20;

/// `aot-master exec TARGET ...`.
///
/// # Errors
/// When the arguments are bad, nothing matches, or the master can't be asked or followed.
pub(crate) async fn exec(ctx: &mut Ctx<'_>, args: ExecArgs) -> Result<Exit, Error> {
    let words = [std::slice::from_ref(&args.target), &args.words].concat();
    run(ctx, args).await.map_err(|error| {
        let is_file = |word: &str| Path::new(word).exists();
        error.hinted(star::hint(&words, is_file))
    })
}

async fn run(ctx: &mut Ctx<'_>, args: ExecArgs) -> Result<Exit, Error> {
    let what = args.what()?;
    if ctx.json && args.output.fold {
        return Err(Error::usage(
            "exec: --fold and --json exclude each other",
            "use one of them",
        ));
    }
    let stdin = match &args.stdin {
        Some(path) => read_stdin(ctx, path)?,
        None => Vec::new(),
    };
    let (output, detach) = (args.output.clone(), args.detach);
    let request = request(ctx, args, what, stdin);
    let builtin = request.builtin();
    let mode = OutputMode {
        output,
        detach,
        // What agents answer by themselves is not output: it is shown when all have answered.
        quiet: builtin != BuiltinName::Unspecified,
        ..OutputMode::default()
    };
    let client = connect(ctx, Start::WithState).await?;
    let interrupt = Interrupt::of_process(ctx.env.interactive);
    let ask = JobAsk::Exec(Box::new(request));
    let source = JobSource::new(ctx, client, ask, Start::WithState)?;
    let seen = begin_and_follow(ctx, source, interrupt, mode.clone()).await?;
    close(ctx, &seen, &mode, builtin)
}

fn request(ctx: &Ctx<'_>, args: ExecArgs, what: ExecAction, stdin: Vec<u8>) -> ExecRequest {
    let (builtin, builtin_args, argv) = match what {
        ExecAction::Builtin(name, args) => (name, args, Vec::new()),
        ExecAction::Run(argv) => (BuiltinName::Unspecified, Vec::new(), argv),
    };
    ExecRequest {
        cluster: ctx.cluster.clone(),
        target: args.target,
        exclude: args.narrow.exclude(),
        limit: args.narrow.limit(),
        builtin: builtin.into(),
        builtin_args,
        argv,
        env: args.env.into_iter().collect(),
        cwd: args.cwd,
        user: args.user,
        stdin,
        timeout_ms: args.timeout.map_or(0, millis),
        detach: args.detach,
        pace: Some(Pace {
            concurrency: args.pace.concurrency,
            max_errors: args.pace.max_errors,
            canary: args.pace.canary.unwrap_or_default(),
            batch_wait_ms: args.pace.batch_wait.map_or(0, millis),
        }),
        queue_ms: args.queue.map_or(0, millis),
        output_cap_bytes: args.output_cap.unwrap_or_default(),
        secrets: args.secret,
    }
}

fn read_stdin(ctx: &mut Ctx<'_>, path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        (&mut *ctx.io.stdin)
            .take(MAX_STDIN_BYTES + 1)
            .read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_STDIN_BYTES + 1).read_to_end(&mut bytes))
    };
    read.map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    if bytes.len() as u64 > MAX_STDIN_BYTES {
        return Err(Error::usage(
            "exec: the input of a command is limited to 1 MiB",
            "copy larger files first: aot-master cp FILE TARGET:/path",
        ));
    }
    Ok(bytes)
}
