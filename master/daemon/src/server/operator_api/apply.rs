//! Stages again, of what was launched, or of a file that the cluster takes over with it.

use std::path::PathBuf;

use aot_model::job::{Job, JobKind};
use aot_model::secret;
use aot_model::spec::{ClusterSpec, MemberSpec, PoolSpec};
use aot_model::world::{Answer, AppliedFile, ApplyAsk, Input, file_refusal};
use aot_proto::fault;
use aot_proto::ids::{ClusterName, InstanceName};
use aot_proto::v1;
use futures::StreamExt;
use tokio_stream::iter;
use tonic::{Code, Status};

use super::handed::{AskedFile, FileText, PoolStages};
use super::launch::pace;
use super::notes::note;
use super::problems::problems_of;
use super::request::BegunEvents;
use super::{Asker, OperatorApi, unanswered};

/// What is applied.
struct Applied {
    cluster: ClusterName,
    /// As typed, for the record.
    what: String,
    stages: PoolStages,
    file: Option<Box<AppliedFile>>,
    notices: Vec<String>,
}

impl OperatorApi {
    pub(super) async fn do_apply(
        &self,
        request: v1::ApplyRequest,
        asker: Asker,
    ) -> Result<BegunEvents, Status> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let what = in_words(&request, None);
        if let Some(job) = self.applied_before(&cluster, &what, &asker).await? {
            return Ok(self.joined(&job, false).await);
        }
        let (_, stages) = self.recorded(&cluster).await?;
        self.put_bundles(&stages).await?;
        let applied = Applied {
            cluster,
            what,
            stages,
            file: None,
            notices: Vec::new(),
        };
        self.begin_apply(&request, applied, asker).await
    }

    pub(super) async fn do_apply_file(
        &self,
        mut request: v1::ApplyFileRequest,
        asker: Asker,
    ) -> Result<BegunEvents, Status> {
        let prepared = request.prepared.take();
        let text = FileText::new(&request.path, &request.text, &request.variables);
        let file = self.asked_file(text, prepared, &asker).await?;
        let read = &file.read;
        let said = request.apply.as_ref().and_then(|it| it.cluster.as_deref());
        is_of_cluster(said, &read.spec, &request.path)?;
        if read.problems.is_empty()
            && let Some(master) = self.owner_elsewhere(&file, &asker).await?
        {
            return self.apply_elsewhere(request, read, master, &asker).await;
        }
        self.is_launched(&read.spec, &request.path)?;
        let apply = request.apply.take().unwrap_or_default();
        let cluster = read.spec.name.clone();
        let what = in_words(&apply, Some(&request));
        if let Some(job) = self.applied_before(&cluster, &what, &asker).await? {
            return Ok(self.joined(&job, false).await);
        }
        if !read.problems.is_empty() {
            let problems = problems_of(read.problems.clone(), read.problems.len());
            return Err(fault::problems(Code::InvalidArgument, &problems));
        }
        let secrets = self.secrets_of(&read.spec, request.secrets).await?;
        if !secrets.problems.is_empty() {
            let problems = problems_of(secrets.problems, 0);
            return Err(fault::problems(Code::FailedPrecondition, &problems));
        }
        let versions = secret::all_versions(&read.spec.secrets, &secrets.sealed);
        let stages = self.stages_of(&file, &versions).await?;
        let targets = self.targets(&cluster, &apply)?;
        if let Some(from) = apply.from.filter(|_| !request.from_name.is_empty()) {
            is_named(&read.spec, &targets, from as usize, &request.from_name)?;
        }
        match file.is_handed() {
            true => self.bring_bundles(&stages).await?,
            false => self.put_bundles(&stages).await?,
        }
        let AskedFile { read, .. } = file;
        let applied = Applied {
            cluster,
            what,
            stages,
            notices: read.notices,
            file: Some(Box::new(AppliedFile {
                spec: read.spec,
                path: PathBuf::from(request.path),
                secrets: secrets.sealed,
            })),
        };
        self.begin_apply(&apply, applied, asker).await
    }

    /// The job that this very request began before. If there is none, there must be room for one.
    async fn applied_before(
        &self,
        cluster: &ClusterName,
        what: &str,
        asker: &Asker,
    ) -> Result<Option<Job>, Status> {
        let wanted = asker.wants(JobKind::Apply, cluster, what);
        let job = self.begun(asker.request, &wanted).await?;
        if job.is_none() {
            self.has_room()?;
        }
        Ok(job)
    }

    async fn begin_apply(
        &self,
        request: &v1::ApplyRequest,
        applied: Applied,
        asker: Asker,
    ) -> Result<BegunEvents, Status> {
        let (cluster, what) = (applied.cluster, applied.what);
        let ask = ApplyAsk {
            cluster: cluster.clone(),
            instances: self.targets(&cluster, request)?,
            file: applied.file,
            stages: applied.stages,
            from: request.from.map(|from| from as usize),
            force: request.force,
            failed: request.failed,
            pace: pace(request.update.as_ref())?,
            what: what.clone(),
            operator: asker.operator.clone(),
            request: asker.request,
        };
        let published = self.engine.subscribe();
        let answer = self
            .engine
            .ask(Input::Apply(ask))
            .await
            .map_err(unanswered)?;
        if let Answer::Begun(id) = answer {
            let wanted = asker.wants(JobKind::Apply, &cluster, &what);
            return self.rejoined(id, &wanted).await;
        }
        if matches!(answer, Answer::Ack) {
            let mut event = note(&cluster, "nothing to do: nothing has failed".to_owned());
            event.event = "launch-ended".to_owned();
            event.last = true;
            let events = iter([Ok(event)]).boxed();
            return Ok(BegunEvents { job: None, events });
        }
        let notices = applied.notices.into_iter();
        let mut first: Vec<v1::Event> = notices.map(|text| note(&cluster, text)).collect();
        first.extend(self.snapshot(&cluster));
        self.answered(cluster, answer, published, first, false)
    }

    /// What was launched last, with its bundles as they are now and the secrets that are on record.
    pub(super) async fn recorded(
        &self,
        cluster: &ClusterName,
    ) -> Result<(ClusterSpec, PoolStages), Status> {
        let known = self.engine.read(cluster, |world| {
            let cluster = world.clusters.get(cluster)?;
            let versions = secret::all_versions(&cluster.spec.secrets, &cluster.secrets);
            Some((cluster.spec.clone(), versions))
        });
        let (spec, versions) = known.ok_or_else(|| Status::not_found("the cluster is gone"))?;
        let stages = self.pack(&spec, &versions).await?;
        Ok((spec, stages))
    }

    /// Refuses a file whose cluster is not there.
    fn is_launched(&self, spec: &ClusterSpec, path: &str) -> Result<(), Status> {
        let name = &spec.name;
        let is_known = self
            .engine
            .read(name, |world| world.clusters.contains_key(name));
        match is_known {
            true => Ok(()),
            false => Err(Status::not_found(format!(
                "{path} is the file of cluster {name}, which was not launched: launch it, or name the file of another cluster with --file"
            ))),
        }
    }

    /// Says of a file whether the cluster can take it over by an apply.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn may_take_over(
        &self,
        said: Option<&str>,
        spec: &ClusterSpec,
        path: &str,
    ) -> Result<(), Status> {
        is_of_cluster(said, spec, path)?;
        self.is_launched(spec, path)?;
        let refusal = self.engine.read(&spec.name, |world| {
            let cluster = world.clusters.get(&spec.name)?;
            file_refusal(&cluster.spec, spec)
        });
        refusal.map_or(Ok(()), |why| Err(Status::failed_precondition(why)))
    }
}

/// Refuses a file of another cluster than the one that is meant.
fn is_of_cluster(said: Option<&str>, spec: &ClusterSpec, path: &str) -> Result<(), Status> {
    match said {
        Some(said) if said != spec.name.as_str() => Err(Status::invalid_argument(format!(
            "{path} is the file of cluster {}, and --cluster says {said}: name the file of {said} with --file",
            spec.name
        ))),
        _ => Ok(()),
    }
}

/// Refuses to begin with a stage that is another one in the file than was meant.
fn is_named(
    spec: &ClusterSpec,
    targets: &[InstanceName],
    from: usize,
    wanted: &str,
) -> Result<(), Status> {
    let is_other = |(pool, member): &(&PoolSpec, &MemberSpec)| {
        let stage = pool.stages.get(from);
        targets.contains(&member.name) && stage.is_none_or(|stage| stage.name != wanted)
    };
    match spec.instances().find(is_other) {
        None => Ok(()),
        Some((_, member)) => Err(Status::invalid_argument(format!(
            "stage {wanted:?} has another place in the file than it had when {} was launched: give its number",
            member.name
        ))),
    }
}

/// As it was typed, for the record.
fn in_words(request: &v1::ApplyRequest, file: Option<&v1::ApplyFileRequest>) -> String {
    let mut words = vec!["apply".to_owned()];
    words.extend(request.target.clone());
    if let Some(file) = file {
        let given = file.variables.clone().unwrap_or_default();
        let files = given.files.into_iter();
        words.extend(files.map(|file| format!("--vars {}", file.path)));
        words.extend(given.set.into_iter().map(|it| format!("--set {it}")));
        words.push(format!("--file {}", file.path));
    }
    words.extend(request.from.map(|from| format!("--from {from}")));
    words.extend(request.force.then(|| "--force".to_owned()));
    words.extend(request.failed.then(|| "--failed".to_owned()));
    let pace = request.update.clone().unwrap_or_default();
    words.extend(pace.concurrency.map(|it| format!("--concurrency {it}")));
    words.extend(pace.canary.map(|it| format!("--canary {it}")));
    words.extend(pace.max_errors.map(|it| format!("--max-errors {it}")));
    words.extend(pace.batch_wait_ms.map(|it| format!("--batch-wait {it}ms")));
    words.join(" ")
}
