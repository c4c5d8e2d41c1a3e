//! Colours, when there are any.

/// Whether and how words are coloured (ECMA-48, SGR).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// False leaves every text as it is.
    pub colour: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Well.
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Failed.
    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// Under way.
    pub fn busy(self, text: &str) -> String {
        self.paint("36", text)
    }

    /// Less important.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// A text in the colour of a name: always the same one for the same name, and never red or dim.
    pub fn name(self, name: &str, text: &str) -> String {
        const CODES: [&str; 10] = ["32", "33", "34", "35", "36", "92", "93", "94", "95", "96"];
        // FNV-1a: cheap, and the same on every machine and in every version.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        self.paint(CODES[(hash % CODES.len() as u64) as usize], text)
    }

    /// A phase of aot, padded to `width` before it is coloured.
    pub fn phase(self, phase: &str, width: usize) -> String {
        let padded = format!("{phase:<width$}");
        match phase {
            "ready" => self.good(&padded),
            "failed" => self.bad(&padded),
            "gone" | "planned" => self.dim(&padded),
            _ => self.busy(&padded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colour_a_text_stays_as_it_is() {
        let plain = Style { colour: false };
        assert_eq!(plain.phase("ready", 7), "ready  ");
        assert_eq!(plain.bad("x"), "x");
        assert_eq!(plain.name("web1", "web1"), "web1");
        assert_eq!(
            Style { colour: true }.phase("failed", 6),
            "\x1b[31mfailed\x1b[0m"
        );
    }

    #[test]
    fn a_name_keeps_its_colour_and_neighbours_differ() {
        let style = Style { colour: true };
        assert_eq!(style.name("web1", "x"), style.name("web1", "x"));
        let colours: std::collections::BTreeSet<String> = (1..10)
            .map(|n| style.name(&format!("web{n}"), "x"))
            .collect();
        assert!(colours.len() > 4, "{colours:?}");
    }
}
