//! Names of objects: a kind, and what is unique in it. Pure.

use std::fmt;
use std::str::FromStr;

use aot_host::hash::is_sha256;
use aot_proto::ids::{ClusterName, RunId};

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlobKind {
    /// A run's output and end, frame by frame.
    Outputs,
    /// A bundle as it was packed.
    Bundles,
    /// An agent that is handed out.
    Agents,
    /// An archive of files on their way to instances.
    Uploads,
}

impl BlobKind {
    /// Each once.
    pub const ALL: [Self; 4] = [Self::Outputs, Self::Bundles, Self::Agents, Self::Uploads];

    /// How the names of its objects begin, before a slash.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outputs => "outputs",
            Self::Bundles => "bundles",
            Self::Agents => "agents",
            Self::Uploads => "uploads",
        }
    }
}

/// The name of an object: `outputs/CLUSTER/RUN`, or the kind and the SHA-256 of the content. Safe as a path: it has no dots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobKey {
    kind: BlobKind,
    name: String,
}

/// It is not the name of an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of an object")]
pub struct BadKey(String);

impl BlobKey {
    /// Of a run's output.
    pub fn output(cluster: &ClusterName, run: RunId) -> Self {
        Self {
            kind: BlobKind::Outputs,
            name: format!("{cluster}/{run}"),
        }
    }

    /// Of something that is named by its content; `None` when that is no SHA-256, or the kind is not named so.
    pub fn content(kind: BlobKind, sha256: &str) -> Option<Self> {
        (kind != BlobKind::Outputs && is_sha256(sha256)).then(|| Self {
            kind,
            name: sha256.to_owned(),
        })
    }

    /// What it is.
    pub fn kind(&self) -> BlobKind {
        self.kind
    }

    /// The run that it is the output of.
    pub fn run(&self) -> Option<RunId> {
        let outputs = self.kind == BlobKind::Outputs;
        let run = outputs.then(|| self.name.rsplit('/').next()).flatten()?;
        run.parse().ok()
    }

    /// SHA-256 of its content, where that is its name.
    pub fn sha256(&self) -> Option<&str> {
        (self.kind != BlobKind::Outputs).then_some(&*self.name)
    }
}

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)
    }
}

impl FromStr for BlobKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let parsed = || {
            let (kind, name) = text.split_once('/')?;
            let kind = BlobKind::ALL.into_iter().find(|it| it.as_str() == kind)?;
            if kind != BlobKind::Outputs {
                return Self::content(kind, name);
            }
            let (cluster, run) = name.split_once('/')?;
            let key = Self::output(&cluster.parse().ok()?, run.parse().ok()?);
            (key.name == name).then_some(key)
        };
        parsed().ok_or_else(|| BadKey(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_no_other_text_is_one() {
        let run = RunId::from_parts(7, 7);
        let sha = "a".repeat(64);
        let output = BlobKey::output(&"web".parse().expect("a name"), run);
        assert_eq!(output.to_string(), format!("outputs/web/{run}"));
        assert_eq!((output.run(), output.sha256()), (Some(run), None));
        let bundle = BlobKey::content(BlobKind::Bundles, &sha).expect("a digest");
        assert_eq!((bundle.run(), bundle.sha256()), (None, Some(&*sha)));
        for key in [output, bundle] {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        for bad in [
            "",
            "outputs",
            "outputs/web",
            &format!("outputs/{run}"),
            &format!("outputs/../{run}"),
            &format!("outputs/web/{run}/x"),
            "bundles/../../etc/passwd",
            &format!("other/{sha}"),
            &format!("bundles/{}", sha.to_uppercase()),
        ] {
            assert!(bad.parse::<BlobKey>().is_err(), "{bad}");
        }
        assert_eq!(BlobKey::content(BlobKind::Outputs, &sha), None);
        assert_eq!(BlobKey::content(BlobKind::Agents, "../x"), None);
    }
}
