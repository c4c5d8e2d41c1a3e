//! A row as every engine has it, and what tells whether two engines have the same rows. Pure.

use std::fmt;

use aot_host::hash::sha256_hex;

/// A table of records. Those that others hang on come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordTable {
    /// Name, record.
    Clusters,
    /// Cluster, name, record.
    Instances,
    /// Cluster, name, record.
    Facts,
    /// Id, cluster, when it ended (milliseconds since 1970), record.
    Jobs,
    /// Job, instance, record.
    Targets,
    /// Job, record.
    Tasks,
    /// Id, job, `CLUSTER/INSTANCE`, kind, whether it is open, record.
    Runs,
    /// Run, bytes.
    Spools,
}

impl RecordTable {
    /// Each once, in their order.
    pub const ALL: [Self; 8] = [
        Self::Clusters,
        Self::Instances,
        Self::Facts,
        Self::Jobs,
        Self::Targets,
        Self::Tasks,
        Self::Runs,
        Self::Spools,
    ];

    /// Its name, the same in every engine.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clusters => "clusters",
            Self::Instances => "instances",
            Self::Facts => "facts",
            Self::Jobs => "jobs",
            Self::Targets => "targets",
            Self::Tasks => "tasks",
            Self::Runs => "runs",
            Self::Spools => "spools",
        }
    }
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredCell {
    /// A name, an id, a record.
    Text(String),
    /// A time, if there is one.
    Number(Option<i64>),
    /// Yes or no.
    Flag(bool),
    /// An output.
    Bytes(Vec<u8>),
}

/// One row, in the columns of its [`RecordTable`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow(pub Vec<StoredCell>);

impl StoredRow {
    /// Bytes, about.
    pub fn weight(&self) -> usize {
        let of = |cell: &StoredCell| match cell {
            StoredCell::Text(text) => text.len(),
            StoredCell::Bytes(bytes) => bytes.len(),
            StoredCell::Number(_) | StoredCell::Flag(_) => 8,
        };
        self.0.iter().map(of).sum()
    }

    /// Each value with its kind and length, so that no two rows are the same text.
    fn encoded(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.weight() + 16 * self.0.len());
        for cell in &self.0 {
            let (kind, bytes): (u8, &[u8]) = match cell {
                StoredCell::Text(value) => (b't', value.as_bytes()),
                StoredCell::Bytes(value) => (b'b', value),
                StoredCell::Number(None) => (b'-', &[]),
                StoredCell::Number(Some(value)) => (b'n', &value.to_be_bytes()),
                StoredCell::Flag(value) => (b'f', if *value { &[1] } else { &[0] }),
            };
            text.push(kind);
            text.extend((bytes.len() as u64).to_be_bytes());
            text.extend(bytes);
        }
        text
    }
}

/// Count and hash of rows in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowsDigest {
    rows: u64,
    sha256: String,
}

impl RowsDigest {
    /// The next row.
    pub fn add(&mut self, row: &StoredRow) {
        let mut text = std::mem::take(&mut self.sha256).into_bytes();
        text.extend(row.encoded());
        self.sha256 = sha256_hex(&text);
        self.rows += 1;
    }

    /// How many there were.
    pub fn rows(&self) -> u64 {
        self.rows
    }
}

impl fmt::Display for RowsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.rows, self.sha256)
    }
}
