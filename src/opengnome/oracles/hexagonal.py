"""Which crystals get a mesh centred at Gamma for their symmetry."""


def is_of_hexagonal_family(space_group: int) -> bool:
    """Whether a space group, by number, is P3 to P6_3/mmc: the trigonal and hexagonal crystal systems.

    A mesh beside Gamma breaks their symmetry; GNoME centres theirs (doi:10.1038/s41586-023-06735-9, Methods).
    """
    return 143 <= space_group <= 194
