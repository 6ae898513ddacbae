"""Training: corpus, image pairs with ground truth, labels, loss, and the trainer of both networks.

Data flow: ``corpus`` -> ``views`` (homographies, rendered rooms, RGB-D) -> ``cache`` (features and
``labels``) -> ``batches`` -> ``loss`` -> ``trainer`` -> ``export``.
"""
