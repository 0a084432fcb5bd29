"""matplotlib, for those who draw: it is no requirement of the ten files."""
from plumbing.files import UserError, saving


def plotter():
    """matplotlib.pyplot, set so that the same scores give the same file byte for byte."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("the pictures need matplotlib: install requirements-dev.txt") from None
    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "qkbart"
    plt.rcParams["font.size"] = 9
    plt.rcParams["axes.spines.top"] = False
    plt.rcParams["axes.spines.right"] = False
    return plt


def save_figure(figure, path):
    """Writes a figure as SVG, whole or not at all, the same bytes on every day."""
    with saving(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
