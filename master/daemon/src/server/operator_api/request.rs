//! Requests that come twice: a command line that lost its master before an answer asks again, with the id that it gave the job.
//! Whether there is that job already, and whether it is the one that is asked for. Called by every call that begins a job.

use aot_host::chain::Chain;
use aot_model::job::{Job, JobKind};
use aot_model::task::Task;
use aot_model::unix_ms::UnixMs;
use aot_model::world::{AskedBy, ExecAsk};
use aot_proto::headers;
use aot_proto::ids::{ClusterName, JobId};
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

use super::{Asker, Events, OperatorApi};

/// How far the time in an id may be from the clock here. Whoever asks again does so within a minute; an id of an older job, or one
/// that would be listed as the newest for years, is none that a command line has just made.
const AROUND_MS: UnixMs = 10 * 60_000;

/// The id that a request gives its job.
///
/// # Errors
/// INVALID_ARGUMENT when it is none, or was not made just now.
pub(super) fn id(metadata: &MetadataMap, now: UnixMs) -> Result<Option<JobId>, Status> {
    let mut given = metadata.get_all(headers::REQUEST).iter();
    let Some(value) = given.next() else {
        return Ok(None);
    };
    let bad = |why: &str| {
        Status::invalid_argument(format!(
            "the header aot-request is refused: {why}; a new id is `job-` and a ULID"
        ))
    };
    if given.next().is_some() {
        return Err(bad("it is there more than once"));
    }
    if value.len() > headers::MAX_BYTES {
        return Err(bad("it is too long"));
    }
    let text = value.to_str().map_err(|_| bad("it is not ASCII"))?;
    let id: JobId = text.parse().map_err(|error| bad(&format!("{error}")))?;
    if id.to_string() != text {
        return Err(bad("it is not written as ids of jobs are"));
    }
    if id.unix_ms().abs_diff(now) > AROUND_MS {
        return Err(bad(
            "its time is more than 10 minutes from the master's clock",
        ));
    }
    Ok(Some(id))
}

/// What a request asks for, as far as a job's record tells it.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub kind: JobKind,
    pub cluster: &'a ClusterName,
    pub what: &'a str,
    pub operator: &'a str,
    pub task: Option<&'a Task>,
}

impl Wanted<'_> {
    /// Who asks for it, and how, for the record.
    pub(super) fn by(&self, request: Option<JobId>) -> AskedBy {
        AskedBy {
            what: self.what.to_owned(),
            operator: self.operator.to_owned(),
            request,
        }
    }
}

impl Asker {
    /// What it asks for, where that is no command and no copy.
    pub(super) fn wants<'a>(
        &'a self,
        kind: JobKind,
        cluster: &'a ClusterName,
        what: &'a str,
    ) -> Wanted<'a> {
        Wanted {
            kind,
            cluster,
            what,
            operator: &self.operator,
            task: None,
        }
    }
}

impl<'a> From<&'a ExecAsk> for Wanted<'a> {
    fn from(ask: &'a ExecAsk) -> Self {
        Self {
            kind: ask.kind,
            cluster: &ask.cluster,
            what: &ask.what,
            operator: &ask.operator,
            task: Some(&ask.task),
        }
    }
}

impl OperatorApi {
    /// The job that this very request began when it was made before; `None` when it is new.
    ///
    /// # Errors
    /// ALREADY_EXISTS when its id is that of another job; UNAVAILABLE when that can't be looked up.
    pub(super) async fn begun(
        &self,
        request: Option<JobId>,
        wanted: &Wanted<'_>,
    ) -> Result<Option<Job>, Status> {
        let Some(id) = request else {
            return Ok(None);
        };
        let job = self.store.job(id).await.map_err(|error| {
            Status::unavailable(format!(
                "cannot look up whether this was asked for before: {}; nothing was begun by this request, try again",
                Chain(&error)
            ))
        })?;
        if let Some(job) = &job {
            check_same(job, wanted)?;
        }
        Ok(job)
    }

    /// [`OperatorApi::begun`] where whoever decides has just said that there is such a job.
    pub(super) async fn begun_already(
        &self,
        id: JobId,
        wanted: &Wanted<'_>,
    ) -> Result<Job, Status> {
        let job = self.begun(Some(id), wanted).await?;
        job.ok_or_else(|| Status::internal(format!("{id} is not on record")))
    }
}

/// Refuses an id that is another job's: whoever asks would take that one for its own.
fn check_same(job: &Job, wanted: &Wanted<'_>) -> Result<(), Status> {
    let is_same = job.kind == wanted.kind
        && job.cluster == *wanted.cluster
        && job.what == wanted.what
        && is_same_operator(&job.operator, wanted.operator)
        && job.task.as_deref() == wanted.task;
    match is_same {
        true => Ok(()),
        false => Err(Status::already_exists(format!(
            "the id of this request is that of another job, {} ({}, of {}): nothing was begun; ask with a new id",
            job.id, job.what, job.operator
        ))),
    }
}

/// Who asks a master's own socket is named without that master, and with it where the master passes the request on: which of the two
/// it is changes with the cluster's owner.
fn is_same_operator(one: &str, other: &str) -> bool {
    let parts = |text| match str::split_once(text, " at ") {
        Some((who, at)) => (who, Some(at)),
        None => (text, None),
    };
    let ((who, at), (other_who, other_at)) = (parts(one), parts(other));
    who == other_who && (at.is_none() || other_at.is_none() || at == other_at)
}

/// The events of a job that was begun or joined, and which job that is.
pub(super) struct BegunEvents {
    pub job: Option<JobId>,
    pub events: Events,
}

impl BegunEvents {
    /// As an answer: whoever loses it can follow the job again by the id in its headers.
    pub(super) fn into_response(self) -> Response<Events> {
        let mut response = Response::new(self.events);
        if let Some(job) = self.job {
            headers::set(response.metadata_mut(), headers::JOB, &job.to_string());
        }
        response
    }

    /// Those of another master.
    pub(super) fn of(response: Response<tonic::Streaming<aot_proto::v1::Event>>) -> Self {
        let job = headers::get(response.metadata(), headers::JOB);
        let job = job.and_then(|id| id.parse().ok());
        let events = Box::pin(response.into_inner());
        Self { job, events }
    }
}

#[cfg(test)]
mod tests;
