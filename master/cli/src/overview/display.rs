//! `status --watch`: a picture of the terminal's size where lines can be redrawn, else what has changed.

use std::collections::HashMap;
use std::io::Write as _;

use aot_proto::plural;
use aot_proto::v1::InstanceView;

use super::seen::{Overview, members};
use super::text::{cluster_line, master_line, print, print_json};
use crate::Ctx;
use crate::args::MaybeTarget;
use crate::error::Error;
use crate::view::{Board, Picture, clock, frame};

/// Most warnings in a picture.
const MAX_WARNINGS: usize = 2;

/// Fewest lines of a cluster in a picture.
const MIN_LINES: usize = 4;

/// What is shown, and what was shown last.
pub(super) struct Display {
    picture: Option<Picture>,
    lines: Vec<String>,
    /// By cluster and name.
    before: Option<HashMap<(String, String), InstanceView>>,
}

impl Display {
    /// Nothing is shown yet.
    pub(super) fn new(ctx: &Ctx<'_>) -> Self {
        let draws = ctx.redraws() && ctx.env.stdout_terminal;
        let picture = draws.then(Picture::on_stderr);
        if let (Some(verbose), Some(picture)) = (&ctx.verbose, &picture) {
            verbose.stderr.set_live(Some(picture.bars().clone()));
        }
        Self {
            picture,
            lines: Vec::new(),
            before: None,
        }
    }

    /// Shows what there is now.
    ///
    /// # Errors
    /// When a stream can't be written to.
    pub(super) fn show(
        &mut self,
        ctx: &mut Ctx<'_>,
        seen: &Overview,
        which: &MaybeTarget,
    ) -> Result<(), Error> {
        match &mut self.picture {
            Some(picture) => {
                self.lines = picture_lines(ctx, seen, picture.most());
                picture.draw(&self.lines);
                Ok(())
            }
            None => print_changes(ctx, seen, which, &mut self.before),
        }
    }

    /// Leaves the last picture, as lines like any others.
    ///
    /// # Errors
    /// When a stream can't be written to.
    pub(super) fn close(mut self, ctx: &mut Ctx<'_>) -> Result<(), Error> {
        if let Some(picture) = &mut self.picture {
            picture.close();
        }
        if let Some(verbose) = &ctx.verbose {
            verbose.stderr.set_live(None);
        }
        for line in self.lines {
            writeln!(ctx.io.stderr, "{line}")?;
        }
        Ok(())
    }
}

/// The master, then each cluster in its share of the lines.
fn picture_lines(ctx: &Ctx<'_>, seen: &Overview, most: usize) -> Vec<String> {
    let style = ctx.style();
    let now_ms = aot_host::clock::unix_ms();
    let time = clock(now_ms, ctx.env.offset);
    let master = seen.master.as_ref().map(master_line).unwrap_or_default();
    let mut lines = vec![style.dim(&format!("{time}  {master}"))];
    let warnings = seen.reply.notes.iter().chain(&seen.reply.absent);
    let warnings = warnings.take(MAX_WARNINGS);
    lines.extend(warnings.map(|text| style.held(&format!("warning: {text}"))));
    let head = lines.len();
    let clusters = &seen.reply.clusters;
    if clusters.is_empty() {
        lines.push("no clusters yet: aot-master launch FILE creates one".to_owned());
    }
    let room = most.saturating_sub(head);
    // One line is kept for those that have no room.
    let fit = match clusters.len() * MIN_LINES <= room {
        true => clusters.len(),
        false => (room.saturating_sub(1) / MIN_LINES).max(1),
    };
    let spare = usize::from(fit < clusters.len());
    for (place, cluster) in clusters.iter().take(fit).enumerate() {
        let used = lines.len() - head;
        let share = room.saturating_sub(used + spare) / (fit - place);
        let members = members(&seen.reply, cluster);
        let mut board = Board::of_views(&cluster.name, members, now_ms);
        for line in seen.printing.get(&cluster.name).into_iter().flatten() {
            board.set_last_line(&line.instance, line.stage, &line.text);
        }
        match board.is_empty() {
            true => lines.push(style.bold(&cluster_line(cluster))),
            false => lines.extend(frame(&board, now_ms, style, share)),
        }
    }
    if spare > 0 {
        let more = plural::count(clusters.len() - fit, "more cluster");
        lines.push(style.dim(&format!("and {more}")));
    }
    lines
}

/// What an instance is, without what is another at each look.
fn without_clocks(view: &InstanceView) -> InstanceView {
    let mut view = InstanceView {
        last_seen_unix_ms: 0,
        ..view.clone()
    };
    for stage in &mut view.stage_views {
        (stage.ms, stage.seconds) = (0, 0);
    }
    view
}

/// Prints what has changed since `before`: in JSON those instances, else all of them when any has.
fn print_changes(
    ctx: &mut Ctx<'_>,
    seen: &Overview,
    which: &MaybeTarget,
    before: &mut Option<HashMap<(String, String), InstanceView>>,
) -> Result<(), Error> {
    let key = |view: &InstanceView| (view.cluster.clone(), view.name.clone());
    let instances = &seen.reply.instances;
    let now: HashMap<_, _> = instances
        .iter()
        .map(|view| (key(view), without_clocks(view)))
        .collect();
    let was = before.take();
    if ctx.json {
        let was = |view: &InstanceView| was.as_ref()?.get(&key(view));
        let is_new = |view: &&InstanceView| was(view) != now.get(&key(view));
        print_json(ctx, instances.iter().filter(is_new))?;
    } else if was.as_ref() != Some(&now) {
        if was.is_some() {
            writeln!(ctx.io.stdout)?;
        }
        print(ctx, seen, which)?;
    }
    *before = Some(now);
    ctx.io.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests;
