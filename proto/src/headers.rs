//! Metadata of operators' calls: which cluster a call is about, so that a master which does not have it passes the call on
//! unread. Set by the command line and by masters; read by masters.

use tonic::metadata::MetadataMap;

/// The name of the cluster that a call is about.
pub const CLUSTER: &str = "aot-cluster";

/// The id of the job that a call is about; in the answer, that of the job that it began or joined.
pub const JOB: &str = "aot-job";

/// The id that the job is to have which a call begins: the same call with the same id finds that job instead of beginning another.
pub const REQUEST: &str = "aot-request";

/// A master is to answer for its own clusters alone.
pub const HERE: &str = "aot-here";

/// Who asks, as the master that passes a call on has seen it. Believed of masters alone.
pub const OPERATOR: &str = "aot-operator";

/// Longest value that is read of any of them.
pub const MAX_BYTES: usize = 256;

/// Sets one. A value that can't stand in a header is left out: whoever reads the request itself then says what is wrong with it.
pub fn set(metadata: &mut MetadataMap, name: &'static str, value: &str) {
    if let Ok(value) = value.parse() {
        metadata.insert(name, value);
    }
}

/// Reads one, unless it is longer than any that is meant.
#[must_use]
pub fn get<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    let value = metadata.get(name)?.to_str().ok()?;
    (value.len() <= MAX_BYTES).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_header_is_left_out_and_what_is_too_long_is_not_read() {
        let mut metadata = MetadataMap::new();
        set(&mut metadata, CLUSTER, "web");
        assert_eq!(get(&metadata, CLUSTER), Some("web"));
        set(&mut metadata, JOB, "a\nb");
        assert_eq!(get(&metadata, JOB), None);
        set(&mut metadata, CLUSTER, &"w".repeat(MAX_BYTES + 1));
        assert_eq!(get(&metadata, CLUSTER), None);
    }
}
