//! sshd on one host, with keys of its own, and what the other calls it by. Both take the cipher that syncfs takes.

use super::{Ends, Side};
use crate::rig::{Program, run};
use std::path::{Path, PathBuf};

/// It starts itself anew for each connection, and must be called by its whole path.
pub const SSHD: &str = "/usr/sbin/sshd";
const CIPHER: &str = "aes256-gcm@openssh.com";

pub struct Ssh {
    /// `ssh -F` it.
    pub config: PathBuf,
    /// User and host.
    pub destination: String,
    _server: Program,
}

impl Ssh {
    pub fn start(ends: &Ends, side: Side) -> Ssh {
        for key in ["host", "user"] {
            let key = ends.at(key);
            run(
                Path::new("/"),
                &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key.to_str().expect("text")],
            );
        }
        // Here sshd locks up what has not logged in yet.
        std::fs::create_dir_all("/run/sshd").expect("a directory");
        let (address, port) = (ends.address(side), ends.port());
        let [server, client] = ["server.conf", "client.conf"].map(|name| ends.at(name));
        let text = format!(
            "ListenAddress {address}:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n\
             Ciphers {CIPHER}\n",
            ends.at("host").display(),
            ends.at("user.pub").display(),
        );
        std::fs::write(&server, text).expect("written");
        let text = format!(
            "Port {port}\nIdentityFile {}\nIdentitiesOnly yes\nBatchMode yes\nStrictHostKeyChecking no\n\
             UserKnownHostsFile /dev/null\nLogLevel ERROR\nCiphers {CIPHER}\n",
            ends.at("user").display(),
        );
        std::fs::write(&client, text).expect("written");
        let words = [SSHD, "-D", "-e", "-f", server.to_str().expect("text")];
        let server = ends.spawn(side, &words, "sshd.log");
        ends.listens(side, port);
        let user = run(Path::new("/"), &["id", "-un"]);
        Ssh { config: client, destination: format!("{}@{address}", user.trim()), _server: server }
    }
}
