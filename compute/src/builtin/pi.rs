use super::BuiltIn;
use crate::{Context, ProgramError, ProgramResult};

pub(super) const PI: BuiltIn = BuiltIn {
    name: "pi",
    usage: "PARTITIONS POINTS",
    about: "estimate pi by points in a square, so many a partition",
    check: |arguments| parse(arguments).map(|_| ()),
    run,
};

fn parse(arguments: &[String]) -> Result<(u32, u32), String> {
    let [partitions, points] = arguments else {
        return Err(format!("expected PARTITIONS and POINTS, found {} arguments", arguments.len()));
    };
    let number = |name: &str, text: &str| {
        text.parse().ok().filter(|number| *number > 0).ok_or(format!("{name} {text:?}: expected a number from 1 on"))
    };
    Ok((number("PARTITIONS", partitions)?, number("POINTS", points)?))
}

#[expect(clippy::print_stdout, reason = "the result is the driver's output")]
fn run(context: &Context, arguments: &[String]) -> ProgramResult {
    let (partitions, points) = parse(arguments)?;
    println!("pi is about {}", estimate(context, partitions, points)?);
    Ok(())
}

/// Four times the share of points that fall into the unit circle. The points are those of a lattice, Weyl's sequence of
/// the inverse of the plastic number and its square, which fill the square evenly: no random number is needed, and every
/// run gives the same.
pub(super) fn estimate(context: &Context, partitions: u32, points: u32) -> Result<f64, ProgramError> {
    let starts: Vec<u64> = (0..partitions).map(|part| u64::from(part) * u64::from(points)).collect();
    let inside = context
        .parallelize(starts, partitions)
        .map(move |start| (start..start + u64::from(points)).filter(|point| is_inside(*point)).count() as u64)
        .reduce(|one, other| one + other)?
        .unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
    let share = inside as f64 / (f64::from(partitions) * f64::from(points));
    Ok(4.0 * share)
}

fn is_inside(point: u64) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "a place in the square needs no more than 52 bits")]
    let along = |step: f64| (point as f64 * step).fract();
    let (x, y) = (along(0.754_877_666_246_692_7), along(0.569_840_290_998_053_2));
    x * x + y * y <= 1.0
}
