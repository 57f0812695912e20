//! The protection profiles and their figures.

/// A cipher with its tag, as SDES and DTLS-SRTP name it. The master key has 128 bits in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// AES in counter mode with an 80-bit HMAC-SHA1 tag (RFC 3711; mandatory in SDES and DTLS-SRTP).
    AesCm128HmacSha1_80,
    /// The same with a 32-bit tag on RTP; RTCP keeps 80 bits (RFC 4568 section 6.2.2, RFC 5764 section 4.1.2).
    AesCm128HmacSha1_32,
    /// AES in Galois/counter mode with a 128-bit tag (RFC 7714).
    AeadAes128Gcm,
}

impl Profile {
    /// Every profile, the preferred first.
    pub const ALL: [Self; 3] = [
        Self::AeadAes128Gcm,
        Self::AesCm128HmacSha1_80,
        Self::AesCm128HmacSha1_32,
    ];

    /// The crypto-suite of `a=crypto` (RFC 4568 section 6.2, RFC 7714 section 14.1).
    pub fn name(self) -> &'static str {
        match self {
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
        }
    }

    /// The profile with this crypto-suite name; the case of its letters does not matter (RFC 5234 section 2.3).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name().eq_ignore_ascii_case(name))
    }

    /// The identifier in the `use_srtp` extension (RFC 5764 section 4.1.2, RFC 7714 section 14.2).
    pub fn dtls_id(self) -> u16 {
        match self {
            Self::AesCm128HmacSha1_80 => 0x0001,
            Self::AesCm128HmacSha1_32 => 0x0002,
            Self::AeadAes128Gcm => 0x0007,
        }
    }

    /// The profile with this `use_srtp` identifier.
    pub fn from_dtls_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.dtls_id() == id)
    }

    /// Octets of the master key and the master salt together: 30 or 28.
    pub fn material_len(self) -> usize {
        super::keys::KEY_LEN + self.salt_len()
    }

    pub(super) fn salt_len(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 => 14,
            Self::AeadAes128Gcm => 12,
        }
    }
}
