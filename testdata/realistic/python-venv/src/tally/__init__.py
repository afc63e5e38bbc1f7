"""Adds numbers with a C extension."""
import click

from . import _sum


@click.command()
@click.argument("numbers", nargs=-1, type=int)
def main(numbers):
    click.echo(_sum.add(numbers))
