//! Templates of a bundle: `x.conf.j2` becomes `x.conf`, with the same mode and owner. They see what aot knows, and nothing of
//! the machine: no file, no process, no environment. Called while a stage's folder is still beside the place it will have.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use aot_archive::{Digest, TEMPLATE};
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value};

/// Largest template, and largest file that one may become.
const MAX_FILE_BYTES: usize = 4 << 20;
/// Most bytes of all rendered files of a bundle.
const MAX_ALL_BYTES: usize = 64 << 20;
/// Steps that one template may take: a loop over 10,000 instances with a few lines for each takes less.
const FUEL: u64 = 20_000_000;
/// Longest part of a template that an error shows.
const SHOWN_CHARS: usize = 80;

/// A bundle whose templates can't be rendered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// What is wrong with a template, or with what it needs.
    #[error("cannot render {}:{line}: {what}", path.display())]
    Template {
        /// Inside the bundle.
        path: PathBuf,
        /// From 1; 0 = the file as a whole.
        line: usize,
        what: String,
    },
    /// Both `x` and `x.j2` are in the bundle.
    #[error("the bundle has both {0} and {0}{TEMPLATE}: rendering would replace the first", path.display())]
    Taken { path: PathBuf },
    /// The disk.
    #[error("cannot render {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// What templates see.
#[derive(Debug, Clone)]
pub(crate) struct TemplateValues {
    /// Name of this instance.
    pub instance: String,
    /// Variables of the cluster's file, a JSON object.
    pub vars: serde_json::Value,
    /// The cluster facts: an object from instance name to facts.
    pub cluster: serde_json::Value,
}

impl TemplateValues {
    fn context(&self) -> Value {
        let facts = self.cluster.get(&self.instance);
        let pool = facts.and_then(|facts| facts.get("pool"));
        // What is not known yet is undefined, so that using it is an error and not an empty text.
        let known = |value: Option<&serde_json::Value>| {
            value.map_or(Value::UNDEFINED, Value::from_serialize)
        };
        Value::from_iter([
            ("instance", Value::from(self.instance.as_str())),
            ("pool", known(pool)),
            ("facts", known(facts)),
            ("cluster", Value::from_serialize(&self.cluster)),
            ("vars", Value::from_serialize(&self.vars)),
        ])
    }
}

/// Renders each of `templates`, which lie in `folder`, into the file that it stands for, and removes it. Gives the SHA-256 of
/// what they have become, hex: the same names, modes and contents give the same.
///
/// # Errors
/// At the first template that can't be rendered; those before it are done.
pub(crate) fn render_all(
    folder: &Path,
    templates: &[PathBuf],
    values: &TemplateValues,
) -> Result<String, Error> {
    let mut digest = Digest::default();
    let context = values.context();
    let mut left = MAX_ALL_BYTES;
    for path in templates {
        let rendered = render_one(folder, path, &context, left.min(MAX_FILE_BYTES))?;
        left = left.saturating_sub(rendered.text.len());
        // Each part with its length, so that none runs into the next.
        for part in [path.as_os_str().as_bytes(), &rendered.text] {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.update(&rendered.mode.to_le_bytes());
    }
    Ok(digest.hex())
}

struct RenderedFile {
    text: Vec<u8>,
    mode: u32,
}

fn render_one(
    folder: &Path,
    path: &Path,
    context: &Value,
    most: usize,
) -> Result<RenderedFile, Error> {
    let failed = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let full = folder.join(path);
    let mut file = File::open(&full).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let source = read(&mut file, path)?;
    let text = render(path, &source, context, most)?;
    // The ending is ASCII, and something stands before it.
    let bytes = full.as_os_str().as_bytes();
    let target = PathBuf::from(std::ffi::OsStr::from_bytes(
        &bytes[..bytes.len() - TEMPLATE.len()],
    ));
    let mode = meta.mode() & 0o7777;
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&target);
    let mut out = match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let path = target.strip_prefix(folder).unwrap_or(&target).to_owned();
            return Err(Error::Taken { path });
        }
        made => made.map_err(failed)?,
    };
    out.write_all(&text).map_err(failed)?;
    let own = out.metadata().map_err(failed)?;
    if (own.uid(), own.gid()) != (meta.uid(), meta.gid()) {
        fchown(&out, Some(meta.uid()), Some(meta.gid())).map_err(failed)?;
    }
    out.set_permissions(meta.permissions()).map_err(failed)?;
    fs::remove_file(&full).map_err(failed)?;
    Ok(RenderedFile { text, mode })
}

fn read(file: &mut File, path: &Path) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let most = MAX_FILE_BYTES as u64 + 1;
    file.take(most)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::Io {
            path: path.to_owned(),
            source,
        })?;
    let wrong = |line, what: String| Error::Template {
        path: path.to_owned(),
        line,
        what,
    };
    if bytes.len() > MAX_FILE_BYTES {
        let what = format!("the template has more than {MAX_FILE_BYTES} bytes");
        return Err(wrong(0, what));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        wrong(line, "it is not UTF-8".to_owned())
    })
}

fn render(path: &Path, source: &str, context: &Value, most: usize) -> Result<Vec<u8>, Error> {
    let name = path.to_string_lossy();
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Configuration files are of many kinds, and their last line has its end.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_keep_trailing_newline(true);
    environment.set_fuel(Some(FUEL));
    let mut out = BoundedText {
        text: Vec::new(),
        most,
        is_full: false,
    };
    let rendered = environment
        .template_from_named_str(&name, source)
        .and_then(|template| template.render_captured_to(context, &mut out).map(drop));
    match rendered {
        Ok(()) => Ok(out.text),
        Err(error) => {
            let what = match error.kind() {
                _ if out.is_full => format!("it becomes more than {most} bytes"),
                ErrorKind::OutOfFuel => format!("it takes more than {FUEL} steps"),
                _ => in_words(&error, source),
            };
            Err(Error::Template {
                path: path.to_owned(),
                line: error.line().unwrap_or(0),
                what,
            })
        }
    }
}

/// `undefined value: vars.port`.
fn in_words(error: &minijinja::Error, source: &str) -> String {
    let mut text = error.kind().to_string();
    if let Some(detail) = error.detail() {
        text.push_str(&format!(": {detail}"));
    }
    let part = error.range().and_then(|range| source.get(range));
    if let Some(part) = part.map(str::trim).filter(|part| !part.is_empty()) {
        let shown: String = part.chars().take(SHOWN_CHARS).collect();
        text.push_str(&format!(": {}", shown.escape_debug()));
    }
    text
}

/// Takes no more than it may.
struct BoundedText {
    text: Vec<u8>,
    most: usize,
    is_full: bool,
}

impl Write for BoundedText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() + bytes.len() > self.most {
            self.is_full = true;
            return Err(io::Error::other("too long"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
