//! From the sources to the settings: built-in default, file, included files, environment, `--set`; later wins.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    error::{ConfigError, ConfigErrors, Origin},
    schema,
    settings::Settings,
    syntax::{self, Line},
    validate,
};

/// Largest file, bytes. A larger one is an error: it is not a configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most files in all.
const FILES_MAX: usize = 256;
/// Most files that include each other in a row.
const DEPTH_MAX: usize = 8;
/// Start of the names of environment variables that are keys.
const PREFIX: &str = "TIDEGATE_";
/// Names the file; it is no key.
const CONFIG_VARIABLE: &str = "TIDEGATE_CONFIG";

/// What a configuration is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The file; `None`: there is none, and the built-in defaults hold.
    pub file: Option<PathBuf>,
    /// Environment variables, names and values. Those whose name starts with `TIDEGATE_` are keys: `__` stands for
    /// a dot, and case does not matter.
    pub environment: Vec<(String, String)>,
    /// `KEY=VALUE`, as `--set` takes it.
    pub arguments: Vec<String>,
}

/// A configuration, and where it comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its values.
    pub settings: Settings,
    /// Where each key was set that was.
    pub(super) origins: BTreeMap<String, Origin>,
}

impl Sources {
    /// The sources of this process: `file`, or else what `TIDEGATE_CONFIG` names; the environment; and `arguments`.
    /// A variable that is not UTF-8 is passed on with replacement characters, so that it is reported if it is a key.
    pub fn of_process(file: Option<PathBuf>, arguments: Vec<String>) -> Sources {
        let named = || std::env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty());
        let variables = std::env::vars_os();
        Sources {
            file: file.or_else(|| named().map(PathBuf::from)),
            environment: variables
                .map(|(name, value)| {
                    (
                        name.to_string_lossy().into_owned(),
                        value.to_string_lossy().into_owned(),
                    )
                })
                .collect(),
            arguments,
        }
    }
}

impl Loaded {
    /// Where the value of `key` comes from.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

/// Reads and validates a configuration. Reads files and nothing else: what they name is not looked at, see
/// [`super::check_files`].
///
/// # Errors
///
/// Everything that is wrong, not only the first.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let mut loader = Loader::default();
    if let Some(file) = &sources.file {
        loader.read_file(file, None, &mut Vec::new());
    }
    loader.read_environment(&sources.environment);
    for argument in &sources.arguments {
        loader.read_argument(argument);
    }
    loader.finish()
}

#[derive(Default)]
struct Loader {
    settings: Settings,
    origins: BTreeMap<String, Origin>,
    errors: Vec<ConfigError>,
    /// Files read so far.
    files: usize,
}

impl Loader {
    fn fail(&mut self, origin: Origin, message: impl Into<String>) {
        let message = message.into();
        self.errors.push(ConfigError { origin, message });
    }

    /// Reads `path`, then the files that it includes. `origin` is the line that includes it; `open` are the files
    /// on the way to it, in their canonical form.
    fn read_file(&mut self, path: &Path, origin: Option<Origin>, open: &mut Vec<PathBuf>) {
        let shared: Arc<Path> = path.into();
        let whole = Origin::File {
            path: Arc::clone(&shared),
            line: 0,
            column: 0,
        };
        let place = origin.unwrap_or(whole.clone());
        self.files += 1;
        if self.files > FILES_MAX {
            // Said once: every further file would say the same.
            if self.files == FILES_MAX + 1 {
                self.fail(place, format!("more than {FILES_MAX} files are included"));
            }
            return;
        }
        let (canonical, text) = match read(path) {
            Ok(read) => read,
            Err(problem) => return self.fail(place, format!("cannot read {}: {problem}", path.display())),
        };
        if open.contains(&canonical) {
            return self.fail(place, format!("{} includes itself", path.display()));
        }
        if open.len() >= DEPTH_MAX {
            return self.fail(
                place,
                format!("more than {DEPTH_MAX} files include each other in a row"),
            );
        }
        open.push(canonical);
        for (origin, pattern) in self.read_lines(&shared, &text) {
            for file in self.expand(path, &origin, &pattern) {
                self.read_file(&file, Some(origin.clone()), open);
            }
        }
        open.pop();
    }

    /// Applies the assignments of a file and returns what it includes.
    fn read_lines(&mut self, path: &Arc<Path>, bytes: &[u8]) -> Vec<(Origin, String)> {
        let mut includes = Vec::new();
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let at = |column| Origin::File {
                path: Arc::clone(path),
                line: index + 1,
                column,
            };
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let text = match std::str::from_utf8(line) {
                Ok(text) => text,
                Err(error) => {
                    let valid = String::from_utf8_lossy(&line[..error.valid_up_to()]);
                    self.fail(at(valid.chars().count() + 1), "the line is not UTF-8");
                    continue;
                }
            };
            match syntax::parse_line(text) {
                Ok(None) => {}
                Ok(Some(Line::Include { file, column })) => includes.push((at(column), file)),
                Ok(Some(Line::Assignment {
                    key,
                    value,
                    key_column,
                    value_column,
                })) => {
                    self.assign(&key, &value, at(key_column), at(value_column));
                }
                Err((column, problem)) => self.fail(at(column), problem),
            }
        }
        includes
    }

    /// The files that `pattern` means, in alphabetical order. A pattern that matches none is not an error, so that a
    /// directory of additions may be empty; a plain name is left to fail when it is read.
    fn expand(&mut self, including: &Path, origin: &Origin, pattern: &str) -> Vec<PathBuf> {
        let directory = including.parent().unwrap_or(Path::new(""));
        if !pattern.contains(['*', '?', '[']) {
            return vec![directory.join(pattern)];
        }
        let absolute = if Path::new(pattern).is_absolute() {
            pattern.to_owned()
        } else {
            let escaped = glob::Pattern::escape(&directory.to_string_lossy());
            Path::new(&escaped).join(pattern).to_string_lossy().into_owned()
        };
        match glob::glob(&absolute) {
            Ok(paths) => paths
                .filter_map(Result::ok)
                .filter(|path| path.is_file())
                .take(FILES_MAX + 1)
                .collect(),
            Err(error) => {
                self.fail(
                    origin.clone(),
                    format!("`{pattern}` is not a pattern of file names ({})", error.msg),
                );
                Vec::new()
            }
        }
    }

    fn read_environment(&mut self, environment: &[(String, String)]) {
        let mut variables: Vec<_> = environment
            .iter()
            .filter_map(|(name, value)| {
                let (start, rest) = name.split_at_checked(PREFIX.len())?;
                let is_ours =
                    start.eq_ignore_ascii_case(PREFIX) && !name.eq_ignore_ascii_case(CONFIG_VARIABLE);
                is_ours.then(|| (rest.to_ascii_lowercase().replace("__", "."), name, value))
            })
            .filter(|(key, ..)| !is_service_link(key))
            .collect();
        variables.sort();
        for (key, name, value) in variables {
            let origin = Origin::Environment(name.clone());
            match syntax::parse_bare(value) {
                Ok(value) => self.assign(&key, &value, origin.clone(), origin),
                Err(problem) => self.fail(origin, problem),
            }
        }
    }

    fn read_argument(&mut self, argument: &str) {
        let origin = Origin::Argument(argument.to_owned());
        let Some((key, value)) = argument.split_once('=') else {
            return self.fail(origin, "expected KEY=VALUE");
        };
        match syntax::parse_bare(value) {
            Ok(value) => self.assign(key.trim(), &value, origin.clone(), origin),
            Err(problem) => self.fail(origin, problem),
        }
    }

    fn assign(&mut self, key: &str, value: &str, key_origin: Origin, value_origin: Origin) {
        match schema::find(key) {
            Err(message) => self.fail(key_origin, message),
            Ok(target) => {
                self.origins.insert(key.to_owned(), key_origin);
                if let Err(message) = target.set(&mut self.settings, value) {
                    self.fail(value_origin, message);
                }
            }
        }
    }

    fn finish(mut self) -> Result<Loaded, ConfigErrors> {
        // Relations are judged once every value is known to be one; else one slip would be reported twice.
        if self.errors.is_empty() {
            self.errors = validate::validate(&self.settings, &self.origins);
        }
        if !self.errors.is_empty() {
            return Err(ConfigErrors(self.errors));
        }
        let Loader {
            mut settings,
            origins,
            ..
        } = self;
        settings.broker.redirect = settings.redirect();
        Ok(Loaded { settings, origins })
    }
}

/// Canonical name and content of a file.
fn read(path: &Path) -> Result<(PathBuf, Vec<u8>), String> {
    let io = |error: std::io::Error| error.to_string();
    let canonical = path.canonicalize().map_err(io)?;
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io)?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("it is larger than 1MB".to_owned());
    }
    Ok((canonical, bytes))
}

/// True for the variables that Kubernetes sets in every container for a service whose name starts with `tidegate`,
/// such as `TIDEGATE_PORT_1883_TCP_ADDR`: nobody wrote them to configure anything.
fn is_service_link(key: &str) -> bool {
    let key = format!("_{key}_");
    !key.contains('.')
        && (key.contains("_service_host_") || key.contains("_service_port_") || {
            let after_port = key.split_once("_port_").map(|(_, rest)| rest);
            after_port.is_some_and(|rest| rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_digit()))
        })
}
