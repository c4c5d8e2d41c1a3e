//! How a command says which instances it is about.

use std::fmt;

use clap::Args;

/// A text that is not empty. An empty one is most likely a variable that was never set; it is refused and never treated as
/// "not given", which often means all.
pub(crate) fn not_empty(text: &str) -> Result<String, String> {
    match text {
        "" => Err("it is empty: leave it out, or give a value".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// How many instances at most. Ansible's flag of this name takes instances: who writes these is told where they go.
fn at_most(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("expected at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) if text.starts_with(|c: char| c.is_ascii_digit()) => {
            Err("expected a number of instances".to_owned())
        }
        Err(_) => Err(format!(
            "expected a number of instances; to name them, give {text:?} as TARGET"
        )),
    }
}

/// A stage: its number, from 0, or its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageArg {
    /// By its place.
    Number(u32),
    /// By its name in the file.
    Name(String),
}

/// `0`, `flaky`.
pub(crate) fn stage(text: &str) -> Result<StageArg, String> {
    let text = not_empty(text)?;
    Ok(text.parse().map_or(StageArg::Name(text), StageArg::Number))
}

/// What narrows a target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Narrow {
    /// Leave these out
    #[arg(long, value_name = "TARGET", value_parser = not_empty)]
    pub exclude: Option<String>,
    /// Only the first N of them, in the order of list
    #[arg(long, value_name = "N", value_parser = at_most)]
    pub limit: Option<u32>,
}

/// A target that must be given.
#[derive(Debug, Clone, Args)]
pub struct TargetArg {
    /// Which instances: '*', 'web*', web1,web2, 'pool:web and not name:web3', state:failed
    #[arg(value_name = "TARGET", value_parser = not_empty)]
    pub target: String,
    /// What narrows it.
    #[command(flatten)]
    pub narrow: Narrow,
}

/// A target that may be left out.
#[derive(Debug, Clone, Default, Args)]
pub struct MaybeTarget {
    /// Which instances [default: all]
    #[arg(value_name = "TARGET", value_parser = not_empty)]
    pub target: Option<String>,
    /// What narrows it.
    #[command(flatten)]
    pub narrow: Narrow,
}

impl Narrow {
    /// The exclusion, as a request has it.
    pub fn exclude(&self) -> Option<String> {
        self.exclude.clone()
    }

    /// The limit, as a request has it.
    pub fn limit(&self) -> u32 {
        self.limit.unwrap_or_default()
    }
}

impl From<TargetArg> for MaybeTarget {
    fn from(TargetArg { target, narrow }: TargetArg) -> Self {
        Self {
            target: Some(target),
            narrow,
        }
    }
}

impl MaybeTarget {
    /// Whether nothing was said: all instances.
    pub fn is_all(&self) -> bool {
        self.target.is_none() && self.narrow == Narrow::default()
    }
}

impl fmt::Display for MaybeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.target.as_deref().unwrap_or("*"))?;
        if let Some(exclude) = &self.narrow.exclude {
            write!(f, " --exclude {exclude:?}")?;
        }
        if let Some(limit) = self.narrow.limit {
            write!(f, " --limit {limit}")?;
        }
        Ok(())
    }
}
