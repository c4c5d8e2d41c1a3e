//! `doctor`: finds what is wrong, of this host and its settings, and of the master that runs where one does. Starts none, changes
//! nothing. `host` measures, `judge` decides.

mod host;
mod judge;

use aot_proto::v1::{
    ExamineRequest, Finding, FindingLevel, InfoReply, InfoRequest, StatusReply, StatusRequest,
};
use tonic::{Code, Status};

use super::Ctx;
use super::dial::{ASK_PROVIDER, Client, QUERY, dial, within};
use super::error::{Error, Exit};
use crate::view::{finding_json, finding_line};
pub use judge::ServePlan;

/// A line for each thing that was looked at; exit 1 when one of them is wrong.
///
/// # Errors
/// When the result can't be written.
pub(crate) async fn doctor(ctx: &mut Ctx<'_>) -> Result<Exit, Error> {
    let mut worst = FindingLevel::Ok;
    for finding in findings(ctx).await {
        worst = worst.max(finding.level());
        let line = match ctx.json {
            true => finding_json(&finding).to_string(),
            false => finding_line(&finding, ctx.style()),
        };
        ctx.print(&line)?;
    }
    Ok(match worst {
        FindingLevel::Fail => Exit::Failed,
        _ => Exit::Well,
    })
}

async fn findings(ctx: &Ctx<'_>) -> Vec<Finding> {
    let (master, mut findings) = match dial(ctx.env, None).await {
        Ok(client) => of_master(ctx, client).await,
        Err(error) => (None, vec![judge::unreached(&error)]),
    };
    let host = host::measure(ctx.env, master.as_ref().map(|info| info.pid)).await;
    let here = judge::host(&host, master.as_ref(), ctx.env.serve.as_ref());
    findings.extend(here);
    findings
}

/// What the master says, and what it says of its agents.
async fn of_master(ctx: &Ctx<'_>, mut client: Client) -> (Option<InfoReply>, Vec<Finding>) {
    if let Some(verbose) = &ctx.verbose {
        let _ = verbose.open(&client).await; // what it answers is the finding
    }
    let info = match client.info(within(QUERY, InfoRequest { all: true })).await {
        Ok(info) => info.into_inner(),
        Err(status) => return (None, vec![unanswered("master", &status)]),
    };
    let mut findings = vec![judge::master(&info)];
    findings.push(judge::builds(&ctx.env.build, &info));
    findings.extend(info.absent.iter().map(|line| {
        let hint = "aot-master masters shows them all";
        Finding::fail("masters", "", line.clone(), hint)
    }));
    let all = StatusRequest::default();
    match client.status(within(QUERY, all)).await {
        Ok(status) => {
            let status: StatusReply = status.into_inner();
            let now_ms = aot_host::clock::unix_ms();
            findings.extend(judge::agents(
                &status,
                &info.version,
                now_ms,
                ctx.env.offset,
            ));
        }
        Err(status) => findings.push(unanswered("agents", &status)),
    }
    match client
        .examine(within(ASK_PROVIDER, ExamineRequest {}))
        .await
    {
        Ok(examined) => findings.extend(examined.into_inner().findings),
        Err(status) if status.code() == Code::Unimplemented => findings.push(Finding::skipped(
            "master",
            "it is older than this command and does not examine itself",
            "aot-master restart",
        )),
        Err(status) => findings.push(unanswered("master", &status)),
    }
    (Some(info), findings)
}

fn unanswered(check: &str, status: &Status) -> Finding {
    let message = format!("the master does not answer: {}", status.message());
    Finding::fail(check, "", message, "its log says why; aot-master restart")
}
