//! Which image a text of the file stands for. Pure; `lookup` asks EC2.

use aws_sdk_ec2::types::Image;

use super::error::invalid;
use crate::provider::ProviderError;

/// An image as the file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// As it is.
    Id(String),
    /// The newest that matches.
    Newest(Pattern),
}

/// What DescribeImages is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// Account id or alias.
    pub owner: String,
    /// Name with `*` and `?`; `{arch}` stands for the distribution's word for the architecture.
    pub name: String,
}

/// Aliases: owner and name. `{arch}` is amd64 or arm64; Amazon says x86_64 or arm64.
const ALIASES: [(&str, &str, &str); 4] = [
    ("debian-12", "136693071363", "debian-12-{amd64|arm64}-*"),
    (
        "ubuntu-24.04",
        "099720109477",
        "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{amd64|arm64}-server-*",
    ),
    (
        "al2023",
        "amazon",
        "al2023-ami-2023.*-kernel-*-{x86_64|arm64}",
    ),
    ("flatcar-stable", "075585003325", "Flatcar-stable-*-hvm"),
];

/// Reads the file's text.
///
/// # Errors
/// When it is none of the forms, or one that is not known here.
pub fn parse(text: &str) -> Result<Wanted, ProviderError> {
    if text.starts_with("ami-") {
        return Ok(Wanted::Id(text.to_owned()));
    }
    if let Some((_, owner, name)) = ALIASES.iter().find(|(alias, ..)| *alias == text) {
        return Ok(Wanted::Newest(Pattern {
            owner: (*owner).into(),
            name: (*name).into(),
        }));
    }
    if text.starts_with("ssm:") {
        return Err(invalid(format!(
            "image {text:?}: this version cannot read SSM parameters; name the image by its id or as name:PATTERN@OWNER"
        )));
    }
    let rest = text
        .strip_prefix("name:")
        .and_then(|rest| rest.rsplit_once('@'));
    if let Some((name, owner)) = rest.filter(|(name, owner)| !name.is_empty() && !owner.is_empty())
    {
        return Ok(Wanted::Newest(Pattern {
            owner: owner.into(),
            name: name.into(),
        }));
    }
    let known: Vec<&str> = ALIASES.iter().map(|(alias, ..)| *alias).collect();
    Err(invalid(format!(
        "image {text:?} is neither ami-…, name:PATTERN@OWNER, nor one of {}",
        known.join(", ")
    )))
}

impl Pattern {
    /// The name to ask for; `arch` is EC2's word, `x86_64` or `arm64`.
    pub fn for_arch(&self, arch: &str) -> String {
        let pick = |x86: &str, arm: &str| {
            if arch == "arm64" {
                arm.to_owned()
            } else {
                x86.to_owned()
            }
        };
        self.name
            .replace("{amd64|arm64}", &pick("amd64", "arm64"))
            .replace("{x86_64|arm64}", &pick("x86_64", "arm64"))
    }
}

/// The newest image by creation date; among equals the one with the last id, so that the choice repeats.
pub fn newest(images: &[Image]) -> Option<String> {
    let dated = images
        .iter()
        .filter_map(|image| Some((image.creation_date.as_deref()?, image.image_id.as_deref()?)));
    dated.max().map(|(_, id)| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_an_image() {
        assert_eq!(parse("ami-1").unwrap(), Wanted::Id("ami-1".into()));
        let Wanted::Newest(debian) = parse("debian-12").unwrap() else {
            panic!()
        };
        assert_eq!(debian.for_arch("x86_64"), "debian-12-amd64-*");
        assert_eq!(debian.for_arch("arm64"), "debian-12-arm64-*");
        let Wanted::Newest(amazon) = parse("al2023").unwrap() else {
            panic!()
        };
        assert_eq!(
            amazon.for_arch("x86_64"),
            "al2023-ami-2023.*-kernel-*-x86_64"
        );
        let own = Pattern {
            owner: "self".into(),
            name: "a@b-*".into(),
        };
        assert_eq!(parse("name:a@b-*@self").unwrap(), Wanted::Newest(own));
        for (text, said) in [
            ("ssm:/aws/x", "SSM"),
            ("debian-11", "debian-12"),
            ("name:x", "name:PATTERN@OWNER"),
            ("name:@o", "name:PATTERN@OWNER"),
            ("", "neither"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn the_newest_wins_and_ties_repeat() {
        let image =
            |id: &str, date: &str| Image::builder().image_id(id).creation_date(date).build();
        let images = [
            image("ami-a", "2024-01-02T00:00:00Z"),
            image("ami-b", "2025-01-01T00:00:00Z"),
            image("ami-c", "2023"),
        ];
        assert_eq!(newest(&images), Some("ami-b".into()));
        assert_eq!(
            newest(&[image("ami-a", "2024"), image("ami-b", "2024")]),
            Some("ami-b".into())
        );
        assert_eq!(newest(&[Image::builder().image_id("ami-x").build()]), None);
    }
}
