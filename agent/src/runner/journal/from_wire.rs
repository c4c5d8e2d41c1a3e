//! What the master asked for, checked and made a record. Pure.

use aot_host::hash::is_sha256;
use aot_proto::limits::MAX_VARS_BYTES;
use aot_proto::v1::StartRun;
use aot_proto::v1::start_run::What;

use super::spec::{RenderSpec, Spec, Work};

/// What the master sent can't be run: it names no program, its paths or digests are not of their form.
#[derive(Debug, thiserror::Error)]
#[error("invalid run: {0}")]
pub(crate) struct Invalid(String);

impl Spec {
    /// Checks what the master sent.
    ///
    /// # Errors
    /// When the id is none, or nothing is to be run, or the bundle's digest is none.
    pub(crate) fn from_wire(start: &StartRun, boot_id: &str) -> Result<Self, Invalid> {
        let bad = |why: &str| Invalid(why.to_owned());
        let what = match &start.what {
            None => return Err(bad("it has neither a command nor a stage")),
            Some(What::Exec(exec)) if exec.argv.first().is_none_or(String::is_empty) => {
                return Err(bad("the command is empty"));
            }
            Some(What::Exec(exec)) => Work::Exec {
                argv: exec.argv.clone(),
                cwd: exec.cwd.clone(),
                user: exec.user.clone(),
            },
            Some(What::CopyIn(copy)) if !is_sha256(&copy.sha256) => {
                return Err(bad("the archive's SHA-256 is not 64 lower-case hex digits"));
            }
            Some(What::CopyIn(copy)) if !copy.path.starts_with('/') => {
                return Err(bad("the path to copy to is not absolute"));
            }
            Some(What::CopyIn(copy)) => Work::CopyIn {
                sha256: copy.sha256.clone(),
                bytes: copy.bytes,
                path: copy.path.clone(),
                into: copy.into,
                names: copy.names.clone(),
            },
            Some(What::CopyOut(copy))
                if copy.paths.is_empty()
                    || !copy.paths.iter().all(|path| path.starts_with('/')) =>
            {
                return Err(bad("a path to copy from is not absolute"));
            }
            Some(What::CopyOut(copy)) => Work::CopyOut {
                paths: copy.paths.clone(),
            },
            Some(What::Stage(stage) | What::RenderedStage(stage)) => {
                let sha = &stage.bundle_sha256;
                if !is_sha256(sha) {
                    return Err(bad("the bundle's SHA-256 is not 64 lower-case hex digits"));
                }
                let is_rendered = matches!(start.what, Some(What::RenderedStage(_)));
                if stage.vars_json.len() > MAX_VARS_BYTES {
                    return Err(bad("its variables are too long"));
                }
                Work::Stage {
                    index: stage.index,
                    name: stage.name.clone(),
                    bundle_sha256: sha.clone(),
                    bundle_bytes: stage.bundle_bytes,
                    args: stage.args.clone(),
                    attempt: stage.attempt,
                    reboots: stage.reboots,
                    render: is_rendered.then(|| RenderSpec {
                        vars_json: stage.vars_json.clone(),
                        unless: stage.unless_rendered.clone(),
                    }),
                }
            }
        };
        if let Some(key) = start
            .env
            .keys()
            .find(|key| key.is_empty() || key.contains(['=', '\0']))
        {
            return Err(bad(&format!("{key:?} is not the name of a variable")));
        }
        Ok(Self {
            run_id: start
                .run_id
                .parse()
                .map_err(|error: aot_proto::ids::BadId| bad(&error.to_string()))?,
            job_id: start.job_id.clone(),
            boot_id: boot_id.to_owned(),
            timeout_ms: start.timeout_ms,
            silence_timeout_ms: start.silence_timeout_ms,
            output_cap_bytes: start.output_cap_bytes,
            env: start
                .env
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            what,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aot_proto::ids::RunId;
    use aot_proto::v1::{CopyInSpec, CopyOutSpec, ExecSpec, StageSpec};

    #[test]
    fn a_run_that_means_nothing_is_refused() {
        let good = StartRun {
            run_id: RunId::from_parts(1, 1).to_string(),
            what: Some(What::Exec(ExecSpec {
                argv: vec!["true".into()],
                ..ExecSpec::default()
            })),
            ..StartRun::default()
        };
        let stage = |sha: &str| {
            Some(What::Stage(StageSpec {
                bundle_sha256: sha.into(),
                ..StageSpec::default()
            }))
        };
        for (name, bad) in [
            (
                "no id",
                StartRun {
                    run_id: "../../etc".into(),
                    ..good.clone()
                },
            ),
            (
                "nothing",
                StartRun {
                    what: None,
                    ..good.clone()
                },
            ),
            (
                "no program",
                StartRun {
                    what: Some(What::Exec(ExecSpec::default())),
                    ..good.clone()
                },
            ),
            (
                "no digest",
                StartRun {
                    what: stage("../x"),
                    ..good.clone()
                },
            ),
            (
                "a copy without a digest",
                StartRun {
                    what: Some(What::CopyIn(CopyInSpec {
                        path: "/opt".into(),
                        ..CopyInSpec::default()
                    })),
                    ..good.clone()
                },
            ),
            (
                "a copy to nowhere",
                StartRun {
                    what: Some(What::CopyIn(CopyInSpec {
                        sha256: "a".repeat(64),
                        path: "opt".into(),
                        ..CopyInSpec::default()
                    })),
                    ..good.clone()
                },
            ),
            (
                "a copy of nothing",
                StartRun {
                    what: Some(What::CopyOut(CopyOutSpec::default())),
                    ..good.clone()
                },
            ),
            (
                "bad variable",
                StartRun {
                    env: [("A=B".into(), "c".into())].into(),
                    ..good.clone()
                },
            ),
        ] {
            assert!(Spec::from_wire(&bad, "b").is_err(), "{name}");
        }
        assert!(
            Spec::from_wire(
                &StartRun {
                    what: stage(&"a".repeat(64)),
                    ..good
                },
                "b"
            )
            .is_ok()
        );
    }
}
