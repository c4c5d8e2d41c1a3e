//! What `status` shows: what the master says of itself, of the instances, and of what their stages are printing.

use std::collections::HashMap;

use aot_proto::v1::last_lines_reply::Line;
use aot_proto::v1::{
    ClusterView, InfoReply, InfoRequest, InstanceView, StageState, StageView, StatusReply,
};

use crate::Ctx;
use crate::args::MaybeTarget;
use crate::dial::{Client, QUERY, within};
use crate::error::Error;
use crate::printing::printed_last;
use crate::status::{StatusDetail, ask_of};

/// What there is, as it was seen once.
pub(super) struct Overview {
    /// The master that was asked, where it says what it is.
    pub master: Option<InfoReply>,
    pub reply: StatusReply,
    /// By cluster, what is being printed.
    pub printing: HashMap<String, Vec<Line>>,
}

/// Asks for it.
pub(super) async fn see(
    ctx: &mut Ctx<'_>,
    client: &mut Client,
    which: &MaybeTarget,
) -> Result<Overview, Error> {
    let wanted = StatusDetail {
        live: false,
        stages: true,
    };
    let reply = ask_of(ctx, client, which, wanted).await?;
    let (mut printing, mut master) = (HashMap::new(), None);
    if !ctx.json {
        for cluster in &reply.clusters {
            let members: Vec<&InstanceView> = members(&reply, cluster).collect();
            let lines = printed_last(client, &cluster.name, &members).await;
            printing.insert(cluster.name.clone(), lines);
        }
        let info = client.info(within(QUERY, InfoRequest::default())).await;
        master = info.ok().map(tonic::Response::into_inner); // it has answered: that it does not say this is no failure
    }
    Ok(Overview {
        master,
        reply,
        printing,
    })
}

/// The instances of a cluster.
pub(super) fn members<'r>(
    reply: &'r StatusReply,
    cluster: &'r ClusterView,
) -> impl Iterator<Item = &'r InstanceView> {
    let of_cluster = |view: &&InstanceView| view.cluster == cluster.name;
    reply.instances.iter().filter(of_cluster)
}

/// The instances, with what is being printed as the detail of the stage that runs.
pub(super) fn with_lines<'r>(
    members: impl Iterator<Item = &'r InstanceView>,
    printing: &[Line],
) -> Vec<InstanceView> {
    let by_name: HashMap<&str, &Line> = printing
        .iter()
        .map(|line| (line.instance.as_str(), line))
        .collect();
    let with_line = |view: &InstanceView| {
        let mut view = view.clone();
        let line = by_name.get(view.name.as_str());
        let runs = |stage: &&mut StageView| {
            stage.state() == StageState::Running
                && line.is_some_and(|line| line.stage == stage.index)
        };
        if let (Some(stage), Some(line)) = (view.stage_views.iter_mut().find(runs), line) {
            stage.detail = line.text.replace('\n', " ");
        }
        view
    };
    members.map(with_line).collect()
}
