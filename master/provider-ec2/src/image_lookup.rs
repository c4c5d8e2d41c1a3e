//! Finds the images that a file names, for each architecture. Called by `prerequisites` and `preflight`; makes nothing.
//!
//! Calls grow with the distinct images of a file, not with its machines.

use std::collections::{BTreeMap, BTreeSet};

use aot_host::chain::Chain;
use aot_provider::ProviderError;
use aws_sdk_ec2::operation::describe_images::DescribeImagesOutput;
use aws_sdk_ec2::types::{Image, ImageState};

use super::client::call;
use super::error::invalid;
use super::image_ref::{Pattern, Text, WantedImage, from_parameter, newest, parse};
use super::lookup::{Each, any_of, pages};

/// Ids in one listing (a filter takes no more).
const IDS: usize = 200;

/// An image as the file names it, and EC2's name of the architecture.
pub(super) type ImageKey = (String, String);

/// Where images are asked for.
pub(super) struct Finder<'a> {
    /// Of the cluster's region.
    pub ec2: &'a aws_sdk_ec2::Client,
    /// Of the same region.
    pub ssm: &'a aws_sdk_ssm::Client,
}

impl Finder<'_> {
    /// The id of each image. Those in `known` stay as long as they can be used; an `ami-...` stands for itself.
    ///
    /// # Errors
    /// When AWS can't be asked at all; what is wrong with one image is its own.
    pub(crate) async fn find(
        &self,
        keys: &BTreeSet<ImageKey>,
        known: &BTreeMap<ImageKey, String>,
    ) -> Result<Each<ImageKey, String>, ProviderError> {
        let mut found = Each::new();
        let mut candidates = BTreeMap::new();
        let mut left = Vec::new();
        for key in keys {
            match (parse(&key.0), known.get(key)) {
                (Ok(WantedImage::Id(id)), _) => drop(found.insert(key.clone(), Ok(id))),
                (Ok(wanted), Some(id)) => drop(candidates.insert(key, (wanted, id.clone()))),
                (Ok(wanted), None) => left.push((key, wanted)),
                (Err(error), _) => drop(found.insert(key.clone(), Err(error))),
            }
        }
        // Those that were recorded, and only then, for what is gone, those of parameters.
        left.extend(self.accept(candidates, &mut found).await?);
        let mut candidates = BTreeMap::new();
        let mut last = Vec::new();
        for (key, wanted) in left {
            match self.parameter(key, &wanted).await {
                Ok(Some(id)) => drop(candidates.insert(key, (wanted, id))),
                Ok(None) => last.push((key, wanted)),
                Err(error) => drop(found.insert(key.clone(), Err(error))),
            }
        }
        last.extend(self.accept(candidates, &mut found).await?);
        for (key, wanted) in last {
            let image = match wanted {
                WantedImage::Newest(pattern) | WantedImage::Alias(_, pattern) => {
                    self.newest(key, &pattern).await
                }
                WantedImage::Id(_) | WantedImage::Parameter(_) => Err(invalid(format!(
                    "image {:?}: the parameter names an image that is not available here",
                    key.0
                ))),
            };
            found.insert(key.clone(), image);
        }
        Ok(found)
    }

    /// Accepts the candidates that are there and fit; gives back the others.
    async fn accept<'k>(
        &self,
        candidates: BTreeMap<&'k ImageKey, (WantedImage, String)>,
        found: &mut Each<ImageKey, String>,
    ) -> Result<Vec<(&'k ImageKey, WantedImage)>, ProviderError> {
        let ids = candidates.values().map(|(_, id)| id.clone()).collect();
        let images = describe(self.ec2, &ids).await?;
        let mut left = Vec::new();
        for (key, (wanted, id)) in candidates {
            let usable = images.get(&id).is_some_and(|image| {
                image.state() == Some(&ImageState::Available)
                    && image
                        .architecture()
                        .is_none_or(|arch| arch.as_str() == key.1)
            });
            if usable {
                found.insert(key.clone(), Ok(id));
            } else {
                left.push((key, wanted));
            }
        }
        Ok(left)
    }

    /// What the parameter of an image says; none for one that has no parameter, or an alias whose parameter can't be
    /// read: its images can be listed instead.
    async fn parameter(
        &self,
        key: &ImageKey,
        wanted: &WantedImage,
    ) -> Result<Option<String>, ProviderError> {
        let (name, needed) = match wanted {
            WantedImage::Parameter(name) => (name, true),
            WantedImage::Alias(Some(name), _) => (name, false),
            WantedImage::Id(_) | WantedImage::Newest(_) | WantedImage::Alias(None, _) => {
                return Ok(None);
            }
        };
        match self.value(&key.0, name, &key.1).await {
            Ok(id) => Ok(Some(id)),
            Err(error) if needed => Err(error),
            Err(error) => {
                tracing::debug!(image = key.0, error = %Chain(&error), "no parameter; listing images");
                Ok(None)
            }
        }
    }

    async fn value(&self, text: &str, name: &Text, arch: &str) -> Result<String, ProviderError> {
        let name = name.for_arch(arch);
        let request = self.ssm.get_parameter().name(&name);
        let answer = call("GetParameter", request.send())
            .await
            .map_err(|mut error| {
                error.message = format!(
                    "image {text:?}: {}",
                    error.message.replacen("EC2 ", "SSM ", 1)
                );
                error
            })?;
        let value = answer.parameter().and_then(|it| it.value());
        value.and_then(from_parameter).ok_or_else(|| {
            invalid(format!(
                "image {text:?}: parameter {name} holds no image id"
            ))
        })
    }

    async fn newest(&self, key: &ImageKey, pattern: &Pattern) -> Result<String, ProviderError> {
        let (text, arch) = key;
        let name = pattern.name.for_arch(arch);
        let ask = |token| {
            let request = self
                .ec2
                .describe_images()
                .owners(&pattern.owner)
                .filters(any_of("name", [&name]))
                .filters(any_of("architecture", [arch]))
                .filters(any_of("state", [&"available".to_owned()]))
                .max_results(1000)
                .set_next_token(token);
            call("DescribeImages", request.send())
        };
        let listed = pages("DescribeImages", DescribeImagesOutput::next_token, ask).await?;
        let images: Vec<Image> = listed
            .into_iter()
            .flat_map(|page| page.images.unwrap_or_default())
            .collect();
        newest(&images).ok_or_else(|| {
            invalid(format!(
                "image {text:?}: no available {arch} image of {} is named {name:?}",
                pattern.owner
            ))
        })
    }
}

/// Images by id, deprecated ones too; one that is not there is not in it.
pub(super) async fn describe(
    ec2: &aws_sdk_ec2::Client,
    ids: &BTreeSet<String>,
) -> Result<BTreeMap<String, Image>, ProviderError> {
    let mut images = BTreeMap::new();
    let ids: Vec<&String> = ids.iter().collect();
    for chunk in ids.chunks(IDS) {
        let ask = |token| {
            let request = ec2
                .describe_images()
                .filters(any_of("image-id", chunk.iter().copied()))
                .include_deprecated(true)
                .set_next_token(token);
            call("DescribeImages", request.send())
        };
        for page in pages("DescribeImages", DescribeImagesOutput::next_token, ask).await? {
            for image in page.images.unwrap_or_default() {
                if let Some(id) = image.image_id.clone() {
                    images.insert(id, image);
                }
            }
        }
    }
    Ok(images)
}
