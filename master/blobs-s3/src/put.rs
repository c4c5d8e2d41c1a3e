//! Puts a file. S3 is told the SHA-256 of each request's content, and refuses what arrives otherwise; an object in parts is
//! there only once all of them are, and then has its length looked at.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use aot_aws::AwsFault;
use aot_host::chain::Chain;
use aot_store::blobs::BlobKey;
use aws_lc_rs::digest::{Context, SHA256};
use aws_sdk_s3::primitives::{ByteStream, Length};
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::S3;
use super::client::sending;
use super::fault;

/// From this length on an object is put in parts: what breaks off costs a part.
const IN_PARTS: u64 = 64 << 20;

/// Bytes of a part.
const PART_BYTES: u64 = 16 << 20;

/// Most parts of an object (Amazon S3 User Guide, multipart upload limits).
const MAX_PARTS: u64 = 10_000;

impl S3 {
    pub(super) async fn put_file(&self, key: &BlobKey, file: &Path) -> Result<(), AwsFault> {
        let bytes = tokio::fs::metadata(file)
            .await
            .map_err(fault::of_file)?
            .len();
        match bytes < IN_PARTS {
            true => self.put_whole(key, file, bytes).await,
            false => self.put_in_parts(key, file, bytes).await,
        }
    }

    async fn put_whole(&self, key: &BlobKey, file: &Path, bytes: u64) -> Result<(), AwsFault> {
        let put = self.client().await.put_object();
        let put = put.bucket(&self.bucket).key(self.name(key));
        put.content_length(signed(bytes))
            .checksum_sha256(sum_of(file, 0..bytes).await?)
            .body(piece(file, 0..bytes).await?)
            .customize()
            .config_override(sending(bytes))
            .send()
            .await
            .map_err(fault::of)?;
        Ok(())
    }

    async fn put_in_parts(&self, key: &BlobKey, file: &Path, bytes: u64) -> Result<(), AwsFault> {
        let name = self.name(key);
        let begin = self.client().await.create_multipart_upload();
        let begin = begin.bucket(&self.bucket).key(&name);
        let begun = begin.checksum_algorithm(ChecksumAlgorithm::Sha256).send();
        let begun = begun.await.map_err(fault::of)?;
        let id = begun.upload_id().unwrap_or_default();
        let done = self.put_parts(&name, id, file, bytes).await;
        if done.is_err()
            && let Err(unended) = self.abort(&name, id).await
        {
            // It is dropped later, with what a master that was killed has left.
            tracing::debug!(object = name, error = %Chain(&*unended.source), "cannot drop the parts of an object");
        }
        done?;
        let there = self.stat(key).await?.map(|found| found.bytes);
        if there == Some(bytes) {
            return Ok(());
        }
        self.remove(key).await?;
        Err(fault::other_content(format!(
            "{bytes} bytes were put, and {} are there",
            there.unwrap_or(0)
        )))
    }

    async fn put_parts(
        &self,
        name: &str,
        id: &str,
        file: &Path,
        bytes: u64,
    ) -> Result<(), AwsFault> {
        let client = self.client().await;
        let mut parts = Vec::new();
        for (number, range) in (1..).zip(ranges(bytes)) {
            let sum = sum_of(file, range.clone()).await?;
            let put = client.upload_part().bucket(&self.bucket).key(name);
            let put = put.upload_id(id).part_number(number);
            let length = range.end - range.start;
            let put = put.content_length(signed(length)).checksum_sha256(&sum);
            let put = put.body(piece(file, range).await?).customize();
            let done = put
                .config_override(sending(length))
                .send()
                .await
                .map_err(fault::of)?;
            let part = CompletedPart::builder().part_number(number);
            let part = part.set_e_tag(done.e_tag);
            parts.push(part.checksum_sha256(sum).build());
        }
        let all = CompletedMultipartUpload::builder().set_parts(Some(parts));
        let end = client.complete_multipart_upload();
        let end = end.bucket(&self.bucket).key(name).upload_id(id);
        end.multipart_upload(all.build())
            .send()
            .await
            .map_err(fault::of)?;
        Ok(())
    }

    pub(super) async fn abort(&self, name: &str, id: &str) -> Result<(), AwsFault> {
        let abort = self.client().await.abort_multipart_upload();
        let abort = abort.bucket(&self.bucket).key(name).upload_id(id);
        abort.send().await.map_err(fault::of)?;
        Ok(())
    }
}

/// Where the parts of an object begin and end.
fn ranges(bytes: u64) -> impl Iterator<Item = Range<u64>> {
    let part = PART_BYTES.max(bytes.div_ceil(MAX_PARTS));
    let starts = (0..bytes).step_by(usize::try_from(part).unwrap_or(usize::MAX));
    starts.map(move |start| start..bytes.min(start + part))
}

/// S3 counts in signed numbers.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

async fn piece(file: &Path, range: Range<u64>) -> Result<ByteStream, AwsFault> {
    let length = Length::Exact(range.end - range.start);
    let piece = ByteStream::read_from().path(file).offset(range.start);
    piece.length(length).build().await.map_err(fault::of_file)
}

/// SHA-256 of a piece, as S3 wants it.
async fn sum_of(file: &Path, range: Range<u64>) -> Result<String, AwsFault> {
    let file = file.to_owned();
    let sum = tokio::task::spawn_blocking(move || sum(&file, range)).await;
    sum.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
        .map_err(fault::of_file)
}

fn sum(file: &Path, range: Range<u64>) -> io::Result<String> {
    let mut file = File::open(file)?;
    file.seek(SeekFrom::Start(range.start))?;
    let mut rest = file.take(range.end - range.start);
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match rest.read(&mut buffer)? {
            0 => break,
            len => context.update(&buffer[..len]),
        }
    }
    Ok(BASE64_STANDARD.encode(context.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_of_it_and_are_never_too_many() {
        for bytes in [IN_PARTS, IN_PARTS + 1, 5 << 40] {
            let mut end = 0;
            let mut count = 0;
            for range in ranges(bytes) {
                assert!(range.start == end && range.end > end, "{range:?}");
                (end, count) = (range.end, count + 1);
            }
            assert_eq!(end, bytes);
            assert!(count <= MAX_PARTS, "{count}");
        }
    }

    #[test]
    fn a_sum_is_of_its_piece_alone() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "xabcx").expect("writes");
        // FIPS 180-4, the example "abc".
        let abc = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        assert_eq!(sum(file.path(), 1..4).expect("reads"), abc);
    }
}
