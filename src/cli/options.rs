//! `-o OPTION,...`, as mount(8) passes them on.
//!
//! Invariant: an option that is not known is refused, or told of where `sloppy` asks for it; what is ignored is known to mean
//! nothing here or to be what syncfs does anyway, so nobody believes in a protection that is not there.

/// What mount(8) means for itself, or what does not change what syncfs does.
const IGNORED: &[&str] = &[
    "_netdev",
    "async",
    "atime",
    "auto",
    "defaults",
    "diratime",
    "group",
    "lazytime",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "nofail",
    "nolazytime",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nouser",
    "owner",
    "relatime",
    "rw",
    "strictatime",
    "user",
    "users",
];

/// What the kernel is told when mounting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelOptions {
    pub read_only: bool,
    pub allow_other: bool,
    pub default_permissions: bool,
    pub extra: Vec<String>,
}

impl KernelOptions {
    /// Switches `name` on; false where it is no option for the kernel.
    pub fn set(&mut self, name: &str) -> bool {
        match name {
            "ro" => self.read_only = true,
            "allow_other" => self.allow_other = true,
            "default_permissions" => self.default_permissions = true,
            "noexec" => self.extra.push(name.to_owned()),
            // As `user,exec` says it: the later counts.
            "exec" => self.extra.retain(|option| option != "noexec"),
            _ => return false,
        }
        true
    }

    /// All that is on, as it is spelled.
    pub fn names(&self) -> Vec<&str> {
        let on = [
            (self.read_only, "ro"),
            (self.allow_other, "allow_other"),
            (self.default_permissions, "default_permissions"),
        ];
        let extra = self.extra.iter().map(String::as_str);
        on.into_iter().filter_map(|(on, name)| on.then_some(name)).chain(extra).collect()
    }

    /// Switches on what is on in `other`.
    pub fn merge(&mut self, other: &KernelOptions) {
        for name in other.names().into_iter().filter(|name| !self.names().contains(name)).collect::<Vec<_>>()
        {
            self.set(name);
        }
    }
}

/// `-o` options, sorted by who they are for.
#[derive(Debug, Default)]
pub struct SpelledOut {
    /// Words for the command line.
    pub long: Vec<String>,
    pub kernel: KernelOptions,
    /// What is not known, where that is no reason to refuse the rest.
    pub unknown: Vec<String>,
}

/// Sorts `options`; `known` are the long options of the command, `hint` says what may be meant by another word.
pub fn spell_out(
    options: &[String],
    known: &[String],
    hint: fn(&str) -> String,
) -> Result<SpelledOut, String> {
    let mut out = SpelledOut::default();
    let sloppy = options.iter().any(|option| option.trim() == "sloppy");
    for option in options.iter().map(|o| o.trim()).filter(|o| !o.is_empty()) {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        if out.kernel.set(name) || is_ignored(name) {
            continue;
        }
        let long = name.replace('_', "-");
        if !known.contains(&long) {
            match name {
                "sloppy" => {}
                "remount" => {
                    return Err("a mount can't be changed while it is there: unmount it, and mount it again"
                        .to_owned());
                }
                _ if sloppy => out.unknown.push(name.to_owned()),
                _ => return Err(format!("mount option '{name}' is not known; {}", hint(name))),
            }
            continue;
        }
        out.long.push(value.map_or_else(|| format!("--{long}"), |value| format!("--{long}={value}")));
    }
    Ok(out)
}

fn is_ignored(name: &str) -> bool {
    IGNORED.contains(&name) || name == "comment" || name.starts_with("x-") || name.starts_with("X-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(options: &str) -> Result<SpelledOut, String> {
        let options: Vec<String> = options.split(',').map(str::to_owned).collect();
        let known = ["peer".to_owned(), "key-file".to_owned(), "new-peer".to_owned()];
        spell_out(&options, &known, |word| format!("not {word}"))
    }

    #[test]
    fn underscores_become_dashes_and_values_stay() {
        let out = spelled("peer=a_b,key_file=/x_y=z,new_peer,").unwrap();
        assert_eq!(out.long, ["--peer=a_b", "--key-file=/x_y=z", "--new-peer"]);
    }

    #[test]
    fn what_mount_means_for_itself_is_ignored() {
        let out = spelled("rw,noatime,nosuid,nodev,_netdev,nofail,x-gvfs-show,comment=a,defaults").unwrap();
        assert_eq!((out.long.len(), out.kernel), (0, KernelOptions::default()));
    }

    #[test]
    fn sloppy_leaves_out_what_is_not_known_and_tells_of_it() {
        let out = spelled("nonsense,peer=b,secure=yes,ro,sloppy").unwrap();
        assert_eq!(
            (out.unknown, out.long),
            (vec!["nonsense".to_owned(), "secure".to_owned()], vec!["--peer=b".to_owned()])
        );
        assert!(out.kernel.read_only && spelled("remount,sloppy").unwrap_err().contains("mount it again"));
    }

    #[test]
    fn what_protects_is_never_ignored() {
        let out = spelled("ro,noexec,allow_other,default_permissions").unwrap();
        let KernelOptions { read_only, allow_other, default_permissions, extra } = out.kernel;
        assert!(read_only && allow_other && default_permissions && extra == ["noexec"]);
        assert_eq!(spelled("noexec,exec").unwrap().kernel, KernelOptions::default());
        assert!(spelled("remount").is_err());
        assert_eq!(spelled("PEER=x").unwrap_err(), "mount option 'PEER' is not known; not PEER");
    }
}
