"""OpenGNoME discovers stable inorganic crystals.

The map, low to high; a package imports only lower lines:

    errors, units, settings     exceptions, the unit system, how settings are read
    crystals                    Crystal, CrystalTable, Composition, symmetry, reading and writing
    generation                  parents -> candidates (ionic and symmetry-aware partial substitution)
    graphs                      crystals -> GraphBatch
    hull                        entries -> formation energies, decomposition energies and products
    oracles                     crystal -> Calculation (relaxation by CHGNet, any ASE calculator, recorded)
    datasets                    public and embedded tables of known crystals, hash splits
    models                      the structural network, ensembles, training, prediction
    campaign                    the discovery loop: settings, journal, state, selection, execution
    report                      journal -> one HTML page
    cli                         the command line

Importing any of them does nothing but define names.
"""

__version__ = "0.1.0"
