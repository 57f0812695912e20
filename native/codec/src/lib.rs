//! Signal processing without a clock: speech codecs, loss concealment, comfort noise, sample rate conversion.

pub mod g711;
pub mod resample;
