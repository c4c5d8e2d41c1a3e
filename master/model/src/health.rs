//! What an instance must pass after a change before others are changed, as the file says it. Pure.

use serde::{Deserialize, Serialize};

/// `health:` of an instance or pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSpec {
    /// What is asked.
    pub check: HealthCheck,
    /// How many times more it is asked after a first try that failed.
    pub retries: u32,
    /// Milliseconds between two tries.
    pub wait_ms: u64,
    /// Milliseconds that a try may take.
    pub timeout_ms: u64,
}

/// What is asked of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthCheck {
    /// Whether its agent is there and starts a process.
    Ping,
    /// A line for /bin/sh that must exit with 0.
    Command(String),
}

impl HealthSpec {
    /// Unless the file says otherwise.
    pub const RETRIES: u32 = 5;
    /// The same, milliseconds.
    pub const WAIT_MS: u64 = 5_000;
    /// The same, milliseconds.
    pub const TIMEOUT_MS: u64 = 30_000;

    /// Asks this, as often and as long as nothing else is said.
    pub fn new(check: HealthCheck) -> Self {
        Self {
            check,
            retries: Self::RETRIES,
            wait_ms: Self::WAIT_MS,
            timeout_ms: Self::TIMEOUT_MS,
        }
    }

    /// What is run for it.
    pub fn argv(&self) -> Vec<String> {
        let line = match &self.check {
            HealthCheck::Ping => ":",
            HealthCheck::Command(line) => line,
        };
        ["/bin/sh", "-c", line].map(str::to_owned).to_vec()
    }
}
