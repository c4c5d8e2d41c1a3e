//! Which image a text of the file stands for. Pure; `images` asks AWS.

use aot_provider::ProviderError;
use aws_sdk_ec2::types::Image;

use super::error::invalid;

/// An image as the file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WantedImage {
    /// As it is.
    Id(String),
    /// What a parameter says.
    Parameter(Text),
    /// The newest that matches.
    Newest(Pattern),
    /// What its maker's parameter says, else the newest that matches.
    Alias(Option<Text>, Pattern),
}

/// A text in which `{amd64|arm64}` and `{x86_64|arm64}` stand for the architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(pub String);

/// What DescribeImages is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// Account id or alias.
    pub owner: String,
    /// Name with `*` and `?`.
    pub name: Text,
}

/// Name, public parameter (empty: there is none), owner, pattern of names.
type Alias = (&'static str, &'static str, &'static str, &'static str);

/// Aliases, and where their makers say what is newest: wiki.debian.org "Cloud/AmazonEC2Image", Canonical's "Find images
/// on AWS", the Amazon Linux 2023 User Guide, flatcar.org "Running on EC2".
const ALIASES: [Alias; 6] = [
    (
        "debian-12",
        "/aws/service/debian/release/12/latest/{amd64|arm64}",
        "136693071363",
        "debian-12-{amd64|arm64}-*",
    ),
    (
        "debian-13",
        "/aws/service/debian/release/13/latest/{amd64|arm64}",
        "136693071363",
        "debian-13-{amd64|arm64}-*",
    ),
    (
        "ubuntu-22.04",
        "/aws/service/canonical/ubuntu/server/22.04/stable/current/{amd64|arm64}/hvm/ebs-gp2/ami-id",
        "099720109477",
        "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-{amd64|arm64}-server-*",
    ),
    (
        "ubuntu-24.04",
        "/aws/service/canonical/ubuntu/server/24.04/stable/current/{amd64|arm64}/hvm/ebs-gp3/ami-id",
        "099720109477",
        "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{amd64|arm64}-server-*",
    ),
    (
        "al2023",
        "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{x86_64|arm64}",
        "amazon",
        "al2023-ami-2023.*-kernel-*-{x86_64|arm64}",
    ),
    ("flatcar-stable", "", "075585003325", "Flatcar-stable-*-hvm"),
];

/// Reads the file's text.
///
/// # Errors
/// When it is none of the forms, or one that is not known here.
pub(crate) fn parse(text: &str) -> Result<WantedImage, ProviderError> {
    if text.starts_with("ami-") {
        return Ok(WantedImage::Id(text.to_owned()));
    }
    let newest = |name: &str, owner: &str| Pattern {
        owner: owner.to_owned(),
        name: Text(name.to_owned()),
    };
    if let Some((_, parameter, owner, name)) = ALIASES.iter().find(|alias| alias.0 == text) {
        let parameter = (!parameter.is_empty()).then(|| Text((*parameter).to_owned()));
        return Ok(WantedImage::Alias(parameter, newest(name, owner)));
    }
    if let Some(name) = text.strip_prefix("ssm:") {
        if !name.starts_with('/') || name.len() == 1 {
            return Err(invalid(format!(
                "image {text:?}: a parameter is named in full, as in ssm:/aws/service/..."
            )));
        }
        return Ok(WantedImage::Parameter(Text(name.to_owned())));
    }
    let rest = text
        .strip_prefix("name:")
        .and_then(|rest| rest.rsplit_once('@'));
    if let Some((name, owner)) = rest.filter(|(name, owner)| !name.is_empty() && !owner.is_empty())
    {
        return Ok(WantedImage::Newest(newest(name, owner)));
    }
    let known: Vec<&str> = ALIASES.iter().map(|alias| alias.0).collect();
    Err(invalid(format!(
        "image {text:?} is neither ami-..., ssm:/..., name:PATTERN@OWNER, nor one of {}",
        known.join(", ")
    )))
}

/// The image that a parameter's value names: an id, or JSON with `image_id` (as those of ECS are).
pub(crate) fn from_parameter(value: &str) -> Option<String> {
    let value = value.trim();
    let id = if value.starts_with('{') {
        let json: serde_json::Value = serde_json::from_str(value).ok()?;
        json.get("image_id")?.as_str()?.to_owned()
    } else {
        value.to_owned()
    };
    let rest = id.strip_prefix("ami-")?;
    (!rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric())).then_some(id)
}

impl Text {
    /// The text to ask for; `arch` is EC2's name, `x86_64` or `arm64`.
    pub(crate) fn for_arch(&self, arch: &str) -> String {
        let pick = |x86: &str, arm: &str| {
            if arch == "arm64" {
                arm.to_owned()
            } else {
                x86.to_owned()
            }
        };
        self.0
            .replace("{amd64|arm64}", &pick("amd64", "arm64"))
            .replace("{x86_64|arm64}", &pick("x86_64", "arm64"))
    }
}

/// The newest image by creation date; among equals the one with the last id, so that the choice repeats.
pub(crate) fn newest(images: &[Image]) -> Option<String> {
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
        assert_eq!(parse("ami-1").unwrap(), WantedImage::Id("ami-1".into()));
        let WantedImage::Alias(Some(parameter), debian) = parse("debian-12").unwrap() else {
            panic!()
        };
        assert_eq!(debian.name.for_arch("x86_64"), "debian-12-amd64-*");
        assert_eq!(debian.name.for_arch("arm64"), "debian-12-arm64-*");
        assert_eq!(
            parameter.for_arch("arm64"),
            "/aws/service/debian/release/12/latest/arm64"
        );
        let WantedImage::Alias(Some(parameter), amazon) = parse("al2023").unwrap() else {
            panic!()
        };
        assert_eq!(
            amazon.name.for_arch("x86_64"),
            "al2023-ami-2023.*-kernel-*-x86_64"
        );
        assert!(parameter.for_arch("x86_64").ends_with("-default-x86_64"));
        assert!(matches!(
            parse("flatcar-stable").unwrap(),
            WantedImage::Alias(None, _)
        ));
        let own = Pattern {
            owner: "self".into(),
            name: Text("a@b-*".into()),
        };
        assert_eq!(parse("name:a@b-*@self").unwrap(), WantedImage::Newest(own));
        assert_eq!(
            parse("ssm:/aws/x").unwrap(),
            WantedImage::Parameter(Text("/aws/x".into()))
        );
        for (text, said) in [
            ("ssm:aws", "ssm:/aws"),
            ("ssm:/", "ssm:/aws"),
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
    fn values_of_parameters() {
        for (value, id) in [
            ("ami-0ab", Some("ami-0ab")),
            (" ami-0ab\n", Some("ami-0ab")),
            (r#"{"image_id": "ami-1", "os": "x"}"#, Some("ami-1")),
            (r#"{"image": "ami-1"}"#, None),
            ("{", None),
            ("ami-", None),
            ("ami-0 x", None),
            ("", None),
        ] {
            assert_eq!(from_parameter(value).as_deref(), id, "{value}");
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
