//! Names with a place for a number: `{id}` and `{id:02}`. Pure.

/// A name with places for a number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Id { width: usize },
}

impl Template {
    /// Reads `p-{id:02}`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let close = rest[open..]
                .find('}')
                .ok_or_else(|| format!("the {{ in {text:?} is never closed"))?
                + open;
            parts.push(Part::Text(rest[..open].to_owned()));
            parts.push(match &rest[open + 1..close] {
                "id" => Part::Id { width: 0 },
                other => match other.strip_prefix("id:0").map(str::parse) {
                    Some(Ok(width @ 1..=6)) => Part::Id { width },
                    _ => return Err(format!("{{{other}}} is not known in a name")),
                },
            });
            rest = &rest[close + 1..];
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// Reads the name of a pool; one without a place for the number has it at its end.
    ///
    /// # Errors
    /// As [`Template::parse`].
    pub(super) fn of_pool(text: &str) -> Result<Self, String> {
        let template = Self::parse(text)?;
        Ok(match template.has_id() {
            true => template,
            false => template.with_id(),
        })
    }

    /// A name without a place for a number.
    pub(crate) fn plain(text: &str) -> Self {
        Self(vec![Part::Text(text.to_owned())])
    }

    /// With a place for the number at its end.
    pub(crate) fn with_id(mut self) -> Self {
        self.0.push(Part::Id { width: 0 });
        self
    }

    /// Whether it has a place for the number.
    pub(crate) fn has_id(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Id { .. }))
    }

    /// Whether some number makes it this name.
    pub(super) fn fits(&self, name: &str) -> bool {
        const MOST_DIGITS: usize = 6;
        let Some((Part::Text(begin), rest)) = self.0.split_first() else {
            return false;
        };
        let Some(behind) = name.strip_prefix(&**begin) else {
            return false;
        };
        if rest.is_empty() {
            return behind.is_empty();
        }
        // What stands first behind a text is a number, and all numbers of a name are one.
        let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
        let ids = (1..=digits.min(MOST_DIGITS)).filter_map(|len| behind[..len].parse().ok());
        ids.into_iter().any(|id| self.render(id) == name)
    }

    /// With the number in its place.
    pub(crate) fn render(&self, id: u32) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Id { width } => format!("{id:0width$}"),
        });
        parts.collect()
    }
}

/// A pool's name: the template without its number, and without the hyphens that are left hanging.
pub(crate) fn without_template(text: &str) -> String {
    let Ok(template) = Template::parse(text) else {
        return text.to_owned();
    };
    if !template.has_id() {
        return text.to_owned();
    }
    let kept = template.0.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.trim_matches('-')),
        Part::Id { .. } => None,
    });
    kept.filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_a_template_by_some_number() {
        for (template, name, fits) in [
            ("web{id}", "web7", true),
            ("web{id}", "web07", false),
            ("web{id}", "web", false),
            ("web{id}", "wob7", false),
            ("web{id:02}-x", "web07-x", true),
            ("web{id:02}-x", "web123-x", true),
            ("web{id:02}-x", "web7-x", false),
            ("a{id}0", "a120", true),
            ("{id}-{id}", "3-3", true),
            ("{id}-{id}", "3-4", false),
            ("plain", "plain", true),
            ("plain", "plain1", false),
        ] {
            let template = Template::parse(template).expect("a template");
            assert_eq!(template.fits(name), fits, "{template:?} {name}");
        }
    }

    #[test]
    fn templates_put_the_number_where_they_say() {
        let render = |text: &str, id| Template::parse(text).expect("a template").render(id);
        assert_eq!(render("web{id}", 7), "web7");
        assert_eq!(render("web{id:02}", 7), "web07");
        assert_eq!(render("p-{id:03}-x", 1234), "p-1234-x");
        for bad in ["web{", "web{n}", "web{id:2}", "web{id:00}", "web{id:0}"] {
            assert!(Template::parse(bad).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn a_pool_is_called_by_its_template_without_the_number() {
        for (given, name) in [
            ("web", "web"),
            ("web{id:02}", "web"),
            ("p-{id}-x", "p-x"),
            ("p-{id}", "p"),
            ("{id}", ""),
        ] {
            assert_eq!(without_template(given), name, "{given}");
        }
    }
}
