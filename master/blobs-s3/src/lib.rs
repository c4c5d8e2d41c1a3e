//! Objects in an S3 bucket, or in what speaks its protocol: `BUCKET/PREFIX/MASTERS/KIND/NAME`. The only crate that knows the
//! SDK of S3. `client` makes the way to it, `put` writes (in parts where that is long), `fault` says why something failed.
//!
//! Nothing waits here for S3 to come back: each call tries a few times, and says then what is wrong.

#![warn(unreachable_pub)]

mod client;
mod fault;
mod put;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aot_aws::AwsFault;
use aot_store::Pending;
use aot_store::blobs::{
    BlobBytes, BlobKey, BlobKind, BlobPlace, Blobs, Error, StoredBlob, UNFINISHED,
};
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::DateTime;

use client::LazyClient;
use fault::is_missing;

/// A part of a bucket.
#[derive(Clone)]
pub struct S3 {
    client: Arc<LazyClient>,
    bucket: String,
    /// Before each name; empty, or with a slash at its end.
    prefix: String,
    place: String,
}

impl S3 {
    /// With the AWS SDK's own settings, read at the first call. `prefix` may be empty.
    pub fn new(bucket: &str, prefix: &str) -> Self {
        Self::with(Arc::default(), bucket, prefix.trim_matches('/'))
    }

    fn with(client: Arc<LazyClient>, bucket: &str, prefix: &str) -> Self {
        let (slash, end) = match prefix {
            "" => ("", String::new()),
            prefix => ("/", format!("{prefix}/")),
        };
        Self {
            client,
            bucket: bucket.to_owned(),
            prefix: end,
            place: format!("s3://{bucket}{slash}{prefix}"),
        }
    }

    async fn client(&self) -> &Client {
        self.client.get().await
    }

    /// The whole name of an object in its bucket.
    fn name(&self, key: &BlobKey) -> String {
        format!("{}{key}", self.prefix)
    }

    fn error(&self, what: &'static str, object: impl ToString, fault: AwsFault) -> Error {
        Error {
            what,
            place: self.place.clone(),
            object: object.to_string(),
            hint: fault.hint,
            source: fault.source,
        }
    }

    async fn stat(&self, key: &BlobKey) -> Result<Option<StoredBlob>, AwsFault> {
        let ask = self.client().await.head_object();
        let answer = ask.bucket(&self.bucket).key(self.name(key)).send().await;
        let head = match answer {
            Ok(head) => head,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(fault::of(error)),
        };
        Ok(Some(StoredBlob {
            key: key.clone(),
            bytes: length(head.content_length()),
            age: age(head.last_modified()),
        }))
    }

    async fn read(&self, key: &BlobKey, from: u64) -> Result<Option<BlobBytes>, AwsFault> {
        let mut total = None;
        if from > 0 {
            // A range that begins past the end is refused.
            let Some(found) = self.stat(key).await? else {
                return Ok(None);
            };
            if from >= found.bytes {
                let (total, rest) = (found.bytes, Box::pin(tokio::io::empty()));
                return Ok(Some(BlobBytes { total, rest }));
            }
            total = Some(found.bytes);
        }
        let ask = self.client().await.get_object();
        let ask = ask.bucket(&self.bucket).key(self.name(key));
        let ask = ask.set_range((from > 0).then(|| format!("bytes={from}-")));
        let answer = match ask.send().await {
            Ok(answer) => answer,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(fault::of(error)),
        };
        Ok(Some(BlobBytes {
            total: total.unwrap_or_else(|| length(answer.content_length())),
            rest: Box::pin(answer.body.into_async_read()),
        }))
    }

    async fn remove(&self, key: &BlobKey) -> Result<(), AwsFault> {
        let ask = self.client().await.delete_object();
        let answer = ask.bucket(&self.bucket).key(self.name(key)).send().await;
        match answer {
            Err(error) if !is_missing(&error) => Err(fault::of(error)),
            _ => Ok(()),
        }
    }

    async fn all(&self, kind: BlobKind) -> Result<Vec<StoredBlob>, AwsFault> {
        let ask = self.client().await.list_objects_v2().bucket(&self.bucket);
        let ask = ask.prefix(format!("{}{}/", self.prefix, kind.as_str()));
        let mut pages = ask.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            for object in page.map_err(fault::of)?.contents() {
                let name = object
                    .key()
                    .and_then(|name| name.strip_prefix(&self.prefix));
                // What is called otherwise is not ours.
                if let Some(Ok(key)) = name.map(str::parse) {
                    found.push(StoredBlob {
                        key,
                        bytes: length(object.size()),
                        age: age(object.last_modified()),
                    });
                }
            }
        }
        Ok(found)
    }

    /// Parts of objects that never became whole. S3 keeps them, and sends the bill, until they are dropped.
    async fn abort_unfinished(&self) -> Result<(), AwsFault> {
        let client = self.client().await;
        let (mut key, mut id) = (None, None);
        loop {
            let ask = client.list_multipart_uploads().bucket(&self.bucket);
            let ask = ask.prefix(&self.prefix);
            let page = ask.set_key_marker(key).set_upload_id_marker(id).send();
            let page = page.await.map_err(fault::of)?;
            for upload in page.uploads() {
                let (Some(key), Some(id)) = (upload.key(), upload.upload_id()) else {
                    continue;
                };
                let is_ours = key.strip_prefix(&self.prefix);
                let is_ours = is_ours.is_some_and(|name| name.parse::<BlobKey>().is_ok());
                if is_ours && age(upload.initiated()) > UNFINISHED {
                    self.abort(key, id).await?;
                }
            }
            if page.is_truncated() != Some(true) {
                return Ok(());
            }
            key = page.next_key_marker().map(str::to_owned);
            id = page.next_upload_id_marker().map(str::to_owned);
        }
    }
}

/// S3 counts in signed numbers.
fn length(bytes: Option<i64>) -> u64 {
    bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or(0)
}

/// By this machine's clock. What has no time, or one that is still to come, is young.
fn age(since: Option<&DateTime>) -> Duration {
    let since = since.and_then(|since| since.secs().try_into().ok());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let then = since.map(Duration::from_secs);
    match (now, then) {
        (Ok(now), Some(then)) => now.saturating_sub(then),
        _ => Duration::ZERO,
    }
}

impl Blobs for S3 {
    fn place(&self) -> &str {
        &self.place
    }

    fn put<'a>(&'a self, key: &'a BlobKey, file: &'a Path) -> Pending<'a, Result<(), Error>> {
        Box::pin(async move {
            let put = self.put_file(key, file).await;
            put.map_err(|fault| self.error("put", key, fault))
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a BlobKey,
        from: u64,
    ) -> Pending<'a, Result<Option<BlobBytes>, Error>> {
        Box::pin(async move {
            let got = self.read(key, from).await;
            got.map_err(|fault| self.error("read", key, fault))
        })
    }

    fn find<'a>(&'a self, key: &'a BlobKey) -> Pending<'a, Result<Option<StoredBlob>, Error>> {
        Box::pin(async move {
            let found = self.stat(key).await;
            found.map_err(|fault| self.error("look for", key, fault))
        })
    }

    fn delete<'a>(&'a self, key: &'a BlobKey) -> Pending<'a, Result<(), Error>> {
        Box::pin(async move {
            let removed = self.remove(key).await;
            removed.map_err(|fault| self.error("remove", key, fault))
        })
    }

    fn list(&self, kind: BlobKind) -> Pending<'_, Result<Vec<StoredBlob>, Error>> {
        Box::pin(async move {
            let listed = self.all(kind).await;
            listed.map_err(|fault| self.error("list", kind.as_str(), fault))
        })
    }

    fn drop_unfinished(&self) -> Pending<'_, Result<(), Error>> {
        Box::pin(async move {
            let dropped = self.abort_unfinished().await;
            dropped.map_err(|fault| self.error("drop unfinished uploads in", "", fault))
        })
    }
}

impl BlobPlace for S3 {
    fn of_masters(&self, id: &str) -> Arc<dyn Blobs> {
        let prefix = format!("{}{id}", self.prefix);
        Arc::new(Self::with(self.client.clone(), &self.bucket, &prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_shown_as_it_is_set_and_names_lie_below_it() {
        let key = BlobKey::content(BlobKind::Agents, &"a".repeat(64)).expect("a digest");
        for (prefix, place, name) in [
            ("", "s3://b", ""),
            ("/", "s3://b", ""),
            ("x/y/", "s3://b/x/y", "x/y/"),
        ] {
            let s3 = S3::new("b", prefix);
            assert_eq!(s3.place(), place);
            assert_eq!(s3.name(&key), format!("{name}{key}"));
            let of = s3.of_masters("id");
            assert_eq!(of.place(), format!("{place}/id"));
        }
    }

    #[test]
    fn what_is_still_to_come_is_young() {
        let at = |ago: i64| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let now = i64::try_from(now.expect("after 1970").as_secs()).expect("fits");
            DateTime::from_secs(now - ago)
        };
        assert!(age(Some(&at(3600))) >= Duration::from_secs(3600));
        assert_eq!(age(Some(&at(-3600))), Duration::ZERO);
        assert_eq!(age(None), Duration::ZERO);
    }
}
