//! TLS 1.3 with raw public keys (RFC 7250), both derived from the share's key.
//!
//! HKDF-SHA256 makes two Ed25519 key pairs out of the key, one for whoever dials and one for whoever
//! accepts. Each side signs the session with its role's pair and takes nothing but the other role's
//! public key: both have then proved, bound to this very session, that they hold the share's key.
//!
//! Invariants: no X.509, no names, no clocks, no resumption, no early data; one suite
//! (AES-256-GCM, X25519), so nothing weaker can be negotiated; two roles, so that a stranger can't
//! reflect our own proof back to us.

use super::error::Error;
use super::key::Key;
use hkdf::Hkdf;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::crypto::ring::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme, version,
};
use sha2::Sha256;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use zeroize::Zeroizing;

/// A PKCS#8 Ed25519 private key but for its seed, the last 32 bytes.
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Both roles' TLS settings, made once from the key.
pub struct Tls {
    pub dialer: Arc<ClientConfig>,
    pub acceptor: Arc<ServerConfig>,
}

impl Tls {
    pub fn new(key: &Key) -> Result<Tls, rustls::Error> {
        let dialer = identity(key, b"syncfs dialer v1")?;
        let acceptor = identity(key, b"syncfs acceptor v1")?;
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384],
            kx_groups: vec![kx_group::X25519],
            ..default_provider()
        });
        let pin = |of: &CertifiedKey| {
            let key = of.cert.first().map(|c| c.to_vec()).unwrap_or_default();
            Arc::new(Pin { key, algorithms: provider.signature_verification_algorithms })
        };
        let (pin_dialer, pin_acceptor) = (pin(&dialer), pin(&acceptor));

        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous() // rustls' word for any verifier that is not X.509
            .with_custom_certificate_verifier(pin_acceptor)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(dialer)));
        client.resumption = Resumption::disabled();
        client.enable_sni = false;

        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(pin_dialer)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(acceptor)));
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Tls { dialer: Arc::new(client), acceptor: Arc::new(server) })
    }

    /// rustls wants a name for whom it dials; the pinned key is the only identity here.
    pub fn name() -> ServerName<'static> {
        ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into())
    }
}

/// The key pair of one role.
fn identity(key: &Key, role: &[u8]) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let mut pkcs8 = Zeroizing::new([0; PKCS8.len() + 32]);
    let (head, seed) = pkcs8.split_at_mut(PKCS8.len());
    head.copy_from_slice(&PKCS8);
    Hkdf::<Sha256>::new(None, key.bytes())
        .expand(role, seed)
        .map_err(|_| rustls::Error::General("a seed of 32 bytes was not to be had".into()))?;
    let signer = any_eddsa_type(&PrivatePkcs8KeyDer::from(&pkcs8[..]))?;
    let public = signer.public_key().ok_or_else(|| rustls::Error::General("no public key".into()))?;
    let certificate = CertificateDer::from(public.to_vec());
    Ok(Arc::new(CertifiedKey::new(vec![certificate], signer)))
}

/// Takes one public key and no other.
#[derive(Debug)]
struct Pin {
    key: Vec<u8>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pin {
    fn key(&self, got: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        if got.as_ref() == self.key && more.is_empty() {
            Ok(())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::General("only TLS 1.3 is spoken here".into()))
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.key(key, more).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pin {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.key(key, more).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// What a failed handshake, or the first read after it, means to a user.
pub fn explain(error: io::Error, address: SocketAddr) -> Error {
    use AlertDescription::{AccessDenied, BadCertificate, CertificateUnknown, DecryptError};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(
            rustls::Error::InvalidCertificate(_)
            | rustls::Error::AlertReceived(AccessDenied | BadCertificate | CertificateUnknown | DecryptError),
        ) => Error::WrongKey { address },
        Some(tls) => Error::NotSyncfs { address, detail: tls.to_string() },
        None if error.kind() == io::ErrorKind::UnexpectedEof => Error::Closed,
        None => Error::Broken(error),
    }
}
