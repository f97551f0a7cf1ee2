//! Images in a bucket of a server that speaks S3. They go there and come from there by way of a file here, in parts that fit
//! into memory. What a part fails at is tried again; an image appears under its name only when it is whole.
//!
//! Server, region and keys are in the environment, under the names that AWS' own tools read. A signed URL is as good as a
//! key while it lasts, so no error shows one.

use std::{env, fs::File, io::Read, io::Write, path::Path, time::Duration};

use reqwest::{Client, Method, Response, StatusCode, Url};
use rusty_s3::{
    Bucket, Credentials, S3Action, UrlStyle,
    actions::{CompleteMultipartUpload, CompleteMultipartUploadResponse, CreateMultipartUpload, ListObjectsV2},
};

use crate::{cli::Error, image_file::superfluous};

/// Images that are not larger go in one piece. S3 takes no smaller parts than 5 MiB, and no more than 10,000.
const PART: u64 = 16 << 20;
const PARTS: u64 = 10_000;
const TRIES: u32 = 5;
/// How long a signed URL lasts: one request.
const SIGNED: Duration = Duration::from_secs(15 * 60);
/// Longest error that is read, in bytes.
const MAX_ERROR: usize = 16 << 10;

/// An image, there or to be.
pub struct Object {
    http: Client,
    bucket: Bucket,
    credentials: Credentials,
    key: String,
    part: u64,
}

/// Server, region and keys.
struct Access {
    endpoint: String,
    region: String,
    credentials: Credentials,
}

impl Access {
    fn of_environment() -> Result<Self, Error> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let wanted = |name: &str| variable(name).ok_or_else(|| format!("s3://… needs {name}"));
        let region = variable("AWS_REGION").unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint = variable("AWS_ENDPOINT_URL").unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let (key, secret) = (wanted("AWS_ACCESS_KEY_ID")?, wanted("AWS_SECRET_ACCESS_KEY")?);
        let credentials = match variable("AWS_SESSION_TOKEN") {
            Some(token) => Credentials::new_with_token(key, secret, token),
            None => Credentials::new(key, secret),
        };
        Ok(Self { endpoint, region, credentials })
    }
}

impl Object {
    /// The image that `s3://BUCKET/KEY` names; none for the name of a file.
    pub fn at(path: &Path) -> Result<Option<Self>, Error> {
        match path.to_str().and_then(|path| path.strip_prefix("s3://")) {
            Some(name) => Self::with(name, Access::of_environment()?, PART).map(Some),
            None => Ok(None),
        }
    }

    fn with(name: &str, access: Access, part: u64) -> Result<Self, Error> {
        let (bucket, key) = name.split_once('/').unwrap_or((name, ""));
        // An URL would have them lead elsewhere.
        if bucket.is_empty() || key.split('/').any(|step| matches!(step, "" | "." | "..")) {
            return Err(format!("s3://{name}: write s3://BUCKET/KEY").into());
        }
        let bad = |error: String| format!("{}: {error}", access.endpoint);
        let endpoint: Url = access.endpoint.parse().map_err(|e| bad(format!("{e}")))?;
        let bucket = Bucket::new(endpoint, UrlStyle::Path, bucket.to_owned(), access.region.clone());
        let http =
            Client::builder().connect_timeout(Duration::from_secs(10)).read_timeout(Duration::from_secs(60)).build();
        Ok(Self {
            http: http.map_err(|e| bad(e.to_string()))?,
            bucket: bucket.map_err(|e| bad(e.to_string()))?,
            credentials: access.credentials,
            key: key.to_owned(),
            part,
        })
    }

    /// Brings a file there.
    pub async fn put(&self, path: &Path) -> Result<(), Error> {
        let size = path.metadata()?.len();
        let mut file = File::open(path)?;
        let part = self.part.max(size.div_ceil(PARTS));
        if size <= part {
            let bytes = piece(&mut file, size)?;
            let url = self.bucket.put_object(Some(&self.credentials), &self.key).sign(SIGNED);
            self.ask(Method::PUT, url, bytes).await?;
            return Ok(());
        }
        let begin = CreateMultipartUpload::new(&self.bucket, Some(&self.credentials), &self.key);
        let begun = self.ask(Method::POST, begin.sign(SIGNED), Vec::new()).await?;
        let begun = CreateMultipartUpload::parse_response(&self.text(begun).await?);
        let begun = begun.map_err(|e| self.failed(&format!("no upload was begun: {e}")))?;
        let ended = self.put_parts(&mut file, size, part, begun.upload_id()).await;
        if ended.is_err() {
            // What is left of it costs its owner money.
            let abort = self.bucket.abort_multipart_upload(Some(&self.credentials), &self.key, begun.upload_id());
            if let Err(error) = self.ask(Method::DELETE, abort.sign(SIGNED), Vec::new()).await {
                tracing::warn!(%error, "parts of an upload are left in the bucket");
            }
        }
        ended
    }

    async fn put_parts(&self, file: &mut File, size: u64, part: u64, upload: &str) -> Result<(), Error> {
        let mut tags = Vec::new();
        for (at, number) in (0..size).step_by(usize::try_from(part)?).zip(1..) {
            let bytes = piece(file, part.min(size.saturating_sub(at)))?;
            let action = self.bucket.upload_part(Some(&self.credentials), &self.key, number, upload);
            let answer = self.ask(Method::PUT, action.sign(SIGNED), bytes).await?;
            let tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok());
            tags.push(tag.ok_or_else(|| self.failed("a part got no ETag"))?.to_owned());
        }
        let tags = || tags.iter().map(String::as_str);
        let end = |tags| CompleteMultipartUpload::new(&self.bucket, Some(&self.credentials), &self.key, upload, tags);
        let answer = self.ask(Method::POST, end(tags()).sign(SIGNED), end(tags()).body().into_bytes()).await?;
        // An answer of 200 may still say that it failed.
        let answer = self.text(answer).await?;
        match CompleteMultipartUploadResponse::parse(&answer) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.failed(&told(&answer))),
        }
    }

    /// Brings it here, into a file.
    pub async fn get(&self, path: &Path) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            let url = self.bucket.get_object(Some(&self.credentials), &self.key).sign(SIGNED);
            let mut answer = self.ask(Method::GET, url, Vec::new()).await?;
            let mut file = File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
            let broken = loop {
                match answer.chunk().await {
                    Ok(Some(bytes)) => file.write_all(&bytes)?,
                    Ok(None) => return Ok(()),
                    Err(error) => break error,
                }
            };
            tries += 1;
            if tries == TRIES {
                return Err(self.failed(&broken.without_url().to_string()));
            }
            pause(tries).await;
        }
    }

    /// Removes images beside it whose names come before its own, so that it and the `keep - 1` before it stay.
    pub async fn thin_out(&self, keep: usize) -> Result<(), Error> {
        let folder = self.key.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        let (mut older, mut after) = (Vec::new(), None);
        loop {
            let mut list = self.bucket.list_objects_v2(Some(&self.credentials));
            list.with_prefix(folder.as_str());
            if let Some(after) = after.take() {
                list.with_continuation_token(after);
            }
            let answer = self.ask(Method::GET, list.sign(SIGNED), Vec::new()).await?;
            let page = ListObjectsV2::parse_response(&self.text(answer).await?);
            let page = page.map_err(|e| self.failed(&format!("the list of images: {e}")))?;
            let beside = |key: &String| {
                let is_image =
                    key.strip_prefix(&folder).is_some_and(|name| !name.contains('/') && name.ends_with(".image"));
                is_image && *key < self.key
            };
            older.extend(page.contents.into_iter().map(|object| object.key).filter(beside));
            after = page.next_continuation_token;
            if after.is_none() {
                break;
            }
        }
        for key in superfluous(older, keep) {
            let url = self.bucket.delete_object(Some(&self.credentials), &key).sign(SIGNED);
            self.ask(Method::DELETE, url, Vec::new()).await?;
        }
        Ok(())
    }

    /// One request, tried again while it may help.
    async fn ask(&self, method: Method, url: Url, body: Vec<u8>) -> Result<Response, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let request = self.http.request(method.clone(), url.clone());
            let answered = match body.is_empty() {
                true => request.header("content-length", 0),
                false => request.body(body.clone()),
            };
            let (why, is_passing) = match answered.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => {
                    let status = answer.status();
                    let passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
                    (format!("{} {}", status.as_u16(), told(&self.text(answer).await.unwrap_or_default())), passing)
                }
                Err(error) => (chain(&error.without_url()), true),
            };
            if !is_passing || tries == TRIES {
                return Err(self.failed(&why));
            }
            tracing::warn!(why, "the bucket fails; tried again");
            pause(tries).await;
        }
    }

    async fn text(&self, mut answer: Response) -> Result<String, Error> {
        let mut text = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(|e| self.failed(&e.without_url().to_string()))? {
            text.extend_from_slice(&bytes);
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn failed(&self, why: &str) -> Error {
        format!("s3://{}/{}: {why}", self.bucket.name(), self.key).into()
    }
}

fn piece(file: &mut File, size: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(usize::try_from(size)?);
    file.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

async fn pause(tries: u32) {
    tokio::time::sleep(Duration::from_millis(200 << tries.min(5))).await;
}

/// An error with what led to it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source()).map(|cause| format!(": {cause}"));
    std::iter::once(error.to_string()).chain(causes).collect()
}

/// Code and message of an error in XML; the rest of it repeats the request.
fn told(answer: &str) -> String {
    let answer = answer.get(..answer.len().min(MAX_ERROR)).unwrap_or_default();
    let field = |name: &str| {
        let (_, rest) = answer.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0.trim().to_owned())
    };
    [field("Code"), field("Message")].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_an_object_and_to_nothing_else() {
        let named = |name: &str| {
            let access = Access {
                endpoint: "http://127.0.0.1:9".to_owned(),
                region: "r".to_owned(),
                credentials: Credentials::new("key", "secret"),
            };
            Object::with(name, access, PART)
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let object = named("images/a/b.image").unwrap();
        assert_eq!((object.bucket.name(), object.key.as_str()), ("images", "a/b.image"));
        for bad in ["images", "images/", "/a", "images/../b", "images/a//b", "images/./a"] {
            assert!(named(bad).is_err(), "{bad}");
        }
        assert!(Object::at(Path::new("folder/a.image")).unwrap().is_none());
    }

    #[test]
    fn of_an_error_code_and_message_are_told_and_nothing_of_the_request() {
        let answer = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>Check your key.</Message>\
                      <StringToSign>secret things</StringToSign></Error>";
        assert_eq!(told(answer), "SignatureDoesNotMatch: Check your key.");
        assert_eq!(told("no XML"), "");
    }
}
