//! How the output of a job is shown: what the operator asked for, and the view that follows from it and from where it is
//! shown. Of exec and jobs.

use std::path::PathBuf;

use clap::Args;

use super::Ctx;
use crate::view::{JobFold, JobJson, JobLines, JobQuiet, JobView};

/// More targets than this are folded on a terminal.
const FOLD_ABOVE: usize = 4;

/// How the output of many is shown.
#[derive(Debug, Clone, Default, Args)]
pub struct OutputArgs {
    /// Show equal outputs once, at the end, differing ones first [default: on a terminal, for more than 4 targets]
    #[arg(long, overrides_with = "no_fold")]
    pub fold: bool,
    /// Show every line as it comes
    #[arg(long, overrides_with = "fold")]
    pub no_fold: bool,
    /// Write DIR/NAME.out, DIR/NAME.err and DIR/outcomes.jsonl instead of showing lines
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

impl OutputArgs {
    /// What was asked about folding.
    pub fn folded(&self) -> Option<bool> {
        match (self.fold, self.no_fold) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }
}

/// How a job is shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutputMode {
    /// As the operator asked.
    pub output: OutputArgs,
    /// Show no output at all.
    pub quiet: bool,
    /// Only until it has started.
    pub detach: bool,
    /// Say what the job is before all else.
    pub heading: bool,
    /// The stream may end before the job does.
    pub so_far: bool,
}

impl OutputMode {
    /// Whether equal outputs of this many targets are shown once.
    pub(crate) fn folds(&self, ctx: &Ctx<'_>, total: usize) -> bool {
        let by_itself = ctx.env.stdout_terminal && total > FOLD_ABOVE && self.output.out.is_none();
        !self.quiet && self.output.folded().unwrap_or(by_itself)
    }

    /// What shows a job over this many targets.
    pub(crate) fn view(&self, ctx: &Ctx<'_>, total: usize) -> Box<dyn JobView> {
        let style = ctx.style();
        if ctx.json {
            Box::new(JobJson::default())
        } else if self.quiet {
            Box::new(JobQuiet(style))
        } else if self.folds(ctx, total) {
            Box::new(JobFold::new(style))
        } else if self.output.out.is_some() && !self.output.no_fold {
            Box::new(JobQuiet(style))
        } else {
            Box::new(JobLines::new(style))
        }
    }
}
