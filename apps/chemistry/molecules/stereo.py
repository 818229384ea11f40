"""What a structure leaves open about its shape in space."""

from rdkit import Chem


def stereo_warnings(mol: Chem.Mol) -> list[str]:
    """Return what a chemist should know: centres and double bonds without a stated arrangement.

    A prediction for a molecule with open stereo stands for no single substance. Groups of
    enhanced stereo ("or", "and") are read as the one isomer that is drawn.
    """
    open_ones = [
        info.type
        for info in Chem.FindPotentialStereo(mol, cleanIt=False, flagPossible=True)
        if info.specified == Chem.StereoSpecified.Unspecified
    ]
    n_bond = open_ones.count(Chem.StereoType.Bond_Double)
    n_atom = len(open_ones) - n_bond
    warnings = []
    if n_atom:
        warnings.append(f"{n_atom} stereocentre{'s' if n_atom > 1 else ''} not stated")
    if n_bond:
        warnings.append(f"{n_bond} double bond{'s' if n_bond > 1 else ''} E or Z not stated")
    if any(g.GetGroupType() != Chem.StereoGroupType.STEREO_ABSOLUTE for g in mol.GetStereoGroups()):
        warnings.append("enhanced stereo read as the isomer drawn")
    return warnings
