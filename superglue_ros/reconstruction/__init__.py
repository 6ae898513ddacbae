"""From pictures to a map: pairs, matches, verification, and COLMAP's mapping through pycolmap.

    pictures -> features -> pairs -> matches -> verified pairs -> keypoints -> model -> page

Everything up to the model is kept in one COLMAP database (:mod:`store`), so that a run that was
stopped goes on where it was.
"""
