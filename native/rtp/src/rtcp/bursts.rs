//! Bursts and gaps of loss as RFC 3611 section 4.7.2 defines them, counted as the packets' fates become known.

/// Received packets in a row that end a burst (RFC 3611 section 4.7.2 recommends 16).
pub const GMIN: u8 = 16;

/// What became of one packet of the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Arrived and was of use.
    Received,
    /// Never arrived.
    Lost,
    /// Arrived too late or too early for the jitter buffer.
    Discarded,
}

/// Losses (or discards) that no [`GMIN`] received packets separate; one alone is part of a gap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cluster {
    losses: u64,
    /// Packets from its first loss to its last.
    span: u64,
}

/// Counts the outcomes in the order of the sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bursts {
    received: u64,
    lost: u64,
    discarded: u64,
    /// Runs of consecutive losses or discards.
    runs: u64,
    /// Packets received since the last loss, or since the beginning.
    since_loss: u64,
    cluster: Cluster,
    /// Packets of the gap since the last burst.
    gap_open: u64,
    gap_count: u64,
    gap_packets: u64,
    gap_losses: u64,
    burst_count: u64,
    burst_packets: u64,
    burst_losses: u64,
}

/// The pattern of a stream's losses; discarded packets are lost ones throughout, except where they are told apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossPattern {
    /// Packets of the sequence.
    pub packets: u64,
    /// Lost in the network, 0 to 1 of the packets.
    pub loss_rate: f64,
    /// Discarded by the jitter buffer, 0 to 1 of the packets.
    pub discard_rate: f64,
    /// Lost within bursts, 0 to 1 of the packets there.
    pub burst_density: f64,
    /// Lost within gaps, 0 to 1 of the packets there.
    pub gap_density: f64,
    /// Mean length of a burst in packets; 0 where there was none.
    pub burst_packets: f64,
    /// Mean length of a gap in packets; 0 where there was none.
    pub gap_packets: f64,
    /// Mean run of losses over the one that random loss of this rate has, 1/(1 - rate) (ITU-T G.107 section 7.5); at
    /// least 1.
    pub burst_ratio: f64,
}

impl Bursts {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next packet of the sequence.
    pub fn push(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Received => {
                self.received += 1;
                self.since_loss += 1;
                return;
            }
            Outcome::Lost => self.lost += 1,
            Outcome::Discarded => self.discarded += 1,
        }
        if self.since_loss > 0 || self.cluster == Cluster::default() {
            self.runs += 1;
        }
        if self.cluster == Cluster::default() || self.since_loss >= u64::from(GMIN) {
            self.close_cluster();
            self.gap_open += self.since_loss;
            self.cluster = Cluster { losses: 1, span: 1 };
        } else {
            self.cluster.losses += 1;
            self.cluster.span += self.since_loss + 1;
        }
        self.since_loss = 0;
    }

    /// What was pushed so far; the ends of the sequence count as gaps.
    pub fn pattern(&self) -> LossPattern {
        let mut all = *self;
        all.close_cluster();
        all.gap_open += all.since_loss;
        all.close_gap();
        let packets = all.received + all.lost + all.discarded;
        let losses = all.lost + all.discarded;
        let mean_run = ratio(losses, all.runs);
        LossPattern {
            packets,
            loss_rate: ratio(all.lost, packets),
            discard_rate: ratio(all.discarded, packets),
            burst_density: ratio(all.burst_losses, all.burst_packets),
            gap_density: ratio(all.gap_losses, all.gap_packets),
            burst_packets: ratio(all.burst_packets, all.burst_count),
            gap_packets: ratio(all.gap_packets, all.gap_count),
            burst_ratio: (mean_run * (1.0 - ratio(losses, packets))).max(1.0),
        }
    }

    fn close_cluster(&mut self) {
        let cluster = std::mem::take(&mut self.cluster);
        if cluster.losses <= 1 {
            self.gap_open += cluster.span;
            self.gap_losses += cluster.losses;
        } else {
            self.close_gap();
            self.burst_count += 1;
            self.burst_packets += cluster.span;
            self.burst_losses += cluster.losses;
        }
    }

    fn close_gap(&mut self) {
        let packets = std::mem::take(&mut self.gap_open);
        self.gap_count += u64::from(packets > 0);
        self.gap_packets += packets;
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}
