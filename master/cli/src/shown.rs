//! What was shown of a stream of output that comes again from its beginning, of the next master: that is left out.

use std::collections::HashMap;

use aot_proto::v1::JobOutput;

/// What was shown of what the targets of a job printed.
#[derive(Debug, Default)]
pub(crate) struct ShownOutput {
    /// Bytes, by target and whether it was its standard error.
    shown: HashMap<(String, bool), u64>,
    /// How many come again.
    again: HashMap<(String, bool), u64>,
}

impl ShownOutput {
    /// All of it comes again from its beginning.
    pub(crate) fn begin_again(&mut self) {
        self.again = self.shown.clone();
    }

    /// What of a piece was not shown before; counted as shown.
    pub(crate) fn rest(&mut self, mut output: JobOutput) -> Option<JobOutput> {
        let of = (output.instance.clone(), output.stderr);
        let known = self.again.entry(of.clone()).or_default();
        let known_here = usize::try_from(*known).unwrap_or(usize::MAX);
        let skipped = known_here.min(output.data.len());
        *known -= skipped as u64;
        let _ = output.data.split_to(skipped);
        *self.shown.entry(of).or_default() += output.data.len() as u64;
        (!output.data.is_empty()).then_some(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(instance: &str, stderr: bool, text: &str) -> JobOutput {
        JobOutput {
            instance: instance.to_owned(),
            stderr,
            data: text.as_bytes().to_vec().into(),
        }
    }

    #[test]
    fn what_comes_again_is_left_out_wherever_it_is_cut() {
        let mut shown = ShownOutput::default();
        let mut rest = |again: bool, of: JobOutput| {
            if again {
                shown.begin_again();
            }
            let rest = shown.rest(of);
            rest.map(|it| String::from_utf8(it.data.to_vec()).expect("text"))
        };
        assert_eq!(
            rest(false, piece("a", false, "one")).as_deref(),
            Some("one")
        );
        assert_eq!(rest(false, piece("a", true, "err")).as_deref(), Some("err"));
        assert_eq!(rest(true, piece("a", false, "on")), None);
        assert_eq!(
            rest(false, piece("a", true, "error")).as_deref(),
            Some("or")
        );
        assert_eq!(
            rest(false, piece("a", false, "e two")).as_deref(),
            Some(" two")
        );
        assert_eq!(
            rest(false, piece("b", false, "one")).as_deref(),
            Some("one")
        );
        assert_eq!(rest(true, piece("a", false, "one two")), None);
        assert_eq!(rest(false, piece("a", false, "!")).as_deref(), Some("!"));
        assert_eq!(rest(false, piece("b", false, "one")), None);
    }
}
