//! The listening buffer on the recorded arrivals of whole networks.

use crate::support::{Heard, Leg, expected, run, schedule};

/// Arrival times of a trace, `None` where the packet was lost.
fn trace(name: &str) -> Vec<Option<f64>> {
    let path = format!(
        "{}/../../tests/traces_network/{name}.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(path).unwrap();
    let arrivals = text.lines().map(|line| line.trim().parse::<f64>().unwrap());
    arrivals.map(|at_ms| (!at_ms.is_nan()).then_some(at_ms)).collect()
}

/// Mean delay of (packet, time) pairs above `floor_ms`, in ms.
fn mean_delay_ms(floor_ms: f64, events: impl Iterator<Item = (u32, f64)>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for (index, at_ms) in events {
        sum += at_ms - 20.0 * f64::from(index) - floor_ms;
        count += 1.0;
    }
    sum / count
}

fn released_ms(leg: &Leg) -> impl Iterator<Item = (u32, f64)> {
    leg.out.iter().filter_map(|released| match released.what {
        Heard::Packet(index) => Some((index, released.at_us as f64 / 1000.0)),
        Heard::Lost(_) | Heard::Silence(_) => None,
    })
}

fn us(at_ms: f64) -> u64 {
    (at_ms * 1000.0).round() as u64
}

#[test]
fn traces_cost_the_network_s_delay_and_loss() {
    // The last column of the traces' README: mean delay in ms, concealment in percent.
    for (name, delay_ms, lost_percent) in [
        ("lan", 0.8, 0.0),
        ("wifi", 8.3, 0.83),
        ("lte", 29.1, 1.53),
        ("step", 22.5, 0.0),
        ("ge5", 5.3, 5.63),
    ] {
        let sent = trace(name);
        let came: Vec<(u32, f64)> = (0..)
            .zip(&sent)
            .filter_map(|(index, at_ms)| at_ms.map(|at_ms| (index, at_ms)))
            .collect();
        let floor_ms = came
            .iter()
            .map(|&(index, at_ms)| at_ms - 20.0 * f64::from(index))
            .fold(f64::MAX, f64::min);
        let network_ms = mean_delay_ms(floor_ms, came.iter().copied());
        let leg = run(
            65_000,
            0,
            &schedule(came.iter().map(|&(index, at_ms)| (us(at_ms), index)).collect()),
        );
        leg.assert_one_timeline();

        let mean_ms = mean_delay_ms(floor_ms, released_ms(&leg));
        let stats = leg.buffer.stats();
        let percent = 100.0 * stats.lost as f64 / sent.len() as f64;
        println!(
            "{name}: network {network_ms:.2} ms, released {mean_ms:.2} ms, lost {percent:.2} %, {stats:?}"
        );
        assert_eq!(stats.lost as usize, sent.len() - came.len(), "{name}");
        assert_eq!(stats.released as usize, came.len(), "{name}");
        assert!(
            mean_ms <= network_ms + 1.0,
            "{name}: {mean_ms} against {network_ms}"
        );
        assert!((mean_ms - delay_ms).abs() < 0.1, "{name}: {mean_ms}");
        assert!((percent - lost_percent).abs() < 0.01, "{name}: {percent}");
    }
}

#[test]
fn traces_with_reordering_and_copies() {
    for name in ["lan", "wifi", "lte", "step", "ge5"] {
        // Seeded: a multiplicative generator modulo the Mersenne prime 2^31 - 1.
        let mut seed = 20_260_101_u64;
        let mut draw = |below: u64| {
            seed = seed * 48_271 % 0x7fff_ffff;
            seed % below
        };
        let mut came = Vec::new();
        let mut arrivals = Vec::new();
        for (index, at_ms) in (0..).zip(trace(name)) {
            let Some(mut at_ms) = at_ms else { continue };
            if draw(100) < 3 {
                // Mostly inside the window behind the next packet, sometimes beyond it.
                at_ms += 15.0 + draw(30_000) as f64 / 1000.0;
            }
            came.push((index, at_ms));
            arrivals.push((us(at_ms), index));
            if draw(100) < 2 {
                arrivals.push((us(at_ms + draw(60_000) as f64 / 1000.0), index));
            }
        }
        let arrivals = schedule(arrivals);
        let leg = run(65_000, u32::MAX - 1000, &arrivals);
        leg.assert_one_timeline();
        assert_eq!(leg.packets(), expected(&arrivals), "{name}");

        let floor_ms = came
            .iter()
            .map(|&(index, at_ms)| at_ms - 20.0 * f64::from(index))
            .fold(f64::MAX, f64::min);
        let network_ms = mean_delay_ms(floor_ms, came.iter().copied());
        let mean_ms = mean_delay_ms(floor_ms, released_ms(&leg));
        let stats = leg.buffer.stats();
        println!("{name}: network {network_ms:.2} ms, released {mean_ms:.2} ms, {stats:?}");
        assert!(
            mean_ms <= network_ms + 1.0,
            "{name}: {mean_ms} against {network_ms}"
        );
        assert!(stats.reordered > 0 && stats.duplicate > 0);
        assert_eq!(
            stats.released as usize + stats.lost as usize,
            1 + *leg.packets().last().unwrap() as usize
        );
    }
}
