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
